//! Loops for the widest vectors that the CPU has.

/// Runs `f` compiled for the widest vector instructions this CPU has. Mark the
/// closure `#[inline(always)]`: one that stays a function of its own keeps the
/// baseline instructions, where each `mul_add` is a call into libm.
#[inline(always)]
pub fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    struct Op<F>(F);
    impl<R, F: FnOnce() -> R> pulp::WithSimd for Op<F> {
        type Output = R;
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> R {
            self.0()
        }
    }
    thread_local! {
        static ARCH: pulp::Arch = pulp::Arch::new();
    }
    ARCH.with(|arch| *arch).dispatch(Op(f))
}

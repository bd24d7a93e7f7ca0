//! CUDA C++ kernels: their text, and what cubecl wants to know of them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use cubecl::CubeKernel;
use cubecl::PrecompiledSource;
use cubecl::ir::metadata::Info;
use cubecl::ir::{ElemType, UIntKind};
use cubecl::prelude::*;

const PRIMITIVES: &str = include_str!("primitives.cuh");
const GEMM: &str = include_str!("gemm.cuh");
const NF4: &str = include_str!("nf4.cuh");
const NF4_GEMM: &str = include_str!("nf4_gemm.cuh");
const FLASH: &str = include_str!("flash.cuh");

/// A file of src/ops/gpu/cuda with the headers that it includes, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum File {
    Nf4Gemm,
    Nf4GemmDx,
    Nf4Rows,
    Bf16Gemm,
    Bf16GemmReduce,
    Flash,
    FlashBackward,
}

impl File {
    pub const ALL: [Self; 7] = [
        Self::Nf4Gemm,
        Self::Nf4GemmDx,
        Self::Nf4Rows,
        Self::Bf16Gemm,
        Self::Bf16GemmReduce,
        Self::Flash,
        Self::FlashBackward,
    ];

    fn parts(self) -> Vec<&'static str> {
        let nf4 = [PRIMITIVES, GEMM, NF4, NF4_GEMM];
        let nf4 = |last| nf4.into_iter().chain([last]).collect();
        match self {
            Self::Nf4Gemm => nf4(include_str!("nf4_gemm.cu")),
            Self::Nf4GemmDx => nf4(include_str!("nf4_gemm_dx.cu")),
            Self::Nf4Rows => vec![PRIMITIVES, NF4, include_str!("nf4_rows.cu")],
            Self::Bf16Gemm => vec![PRIMITIVES, GEMM, include_str!("bf16_gemm.cu")],
            Self::Bf16GemmReduce => {
                vec![PRIMITIVES, include_str!("bf16_gemm_reduce.cu")]
            }
            Self::Flash => {
                vec![PRIMITIVES, FLASH, include_str!("flash_attention.cu")]
            }
            Self::FlashBackward => vec![
                PRIMITIVES,
                FLASH,
                include_str!("flash_attention_backward.cu"),
            ],
        }
    }
}

impl File {
    /// A hash of the text, made once: every launch asks for it.
    pub fn fingerprint(self) -> u64 {
        static KNOWN: [OnceLock<u64>; File::ALL.len()] =
            [const { OnceLock::new() }; File::ALL.len()];
        *KNOWN[self as usize].get_or_init(|| {
            let mut hasher = DefaultHasher::new();
            self.parts().hash(&mut hasher);
            hasher.finish()
        })
    }
}

/// One kernel: a file, its entry point, what is defined before it, the threads of a
/// block and the bytes of shared memory that they use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    pub file: File,
    pub entry: &'static str,
    pub defines: Vec<(&'static str, u32)>,
    pub threads: u32,
    pub shared: u32,
}

impl Kernel {
    /// The text that NVRTC compiles: no include is left in it. It names the entry
    /// point: cubecl's cache on disk gives equal texts one compiled kernel, and with it
    /// one entry point.
    pub fn text(&self) -> String {
        let mut text = format!("// entry: {}\n", self.entry);
        for (name, value) in &self.defines {
            text.push_str(&format!("#define {name} {value}\n"));
        }
        for part in self.file.parts() {
            for line in part.lines().filter(|l| !l.starts_with("#include \"")) {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

impl CubeKernel for Kernel {
    fn define(&self) -> KernelDefinition {
        let dim = CubeDim::new_1d(self.threads);
        let settings = KernelSettings::new(dim.0, ExecutionMode::Unchecked, AddressType::U32);
        KernelDefinition {
            body: Scope::root(settings.clone()),
            settings,
            info: Info::default(),
        }
    }

    fn source(&self) -> Option<PrecompiledSource> {
        Some(PrecompiledSource {
            source: self.text(),
            entrypoint_name: self.entry.into(),
            lang: "cuda",
        })
    }
}

impl KernelMetadata for Kernel {
    fn id(&self) -> KernelId {
        // Caches on disk know a kernel by its id alone, so the text has part in it, and
        // they take the size of a block from it.
        KernelId::new::<Self>()
            .info((self.clone(), self.file.fingerprint()))
            .cube_dim(CubeDim::new_1d(self.threads).0)
    }

    fn address_type(&self) -> ElemType {
        UIntKind::U32.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_points_of_one_file_have_texts_of_their_own() {
        let text = |entry| {
            let kernel = Kernel {
                file: File::FlashBackward,
                entry,
                defines: vec![("KILN_D", 64)],
                threads: 128,
                shared: 50_688,
            };
            kernel.text()
        };
        assert_ne!(text("flash_attention_dq"), text("flash_attention_dkv"));
    }
}

//! Kernels that need more shared memory than the 48 KiB that a block may declare. A
//! launch has to ask for it, and cubecl asks for none for source text; but a kernel
//! that it finds among those compiled before gets as much as is noted there. So these
//! are compiled here and put there before cubecl looks for them.

use std::collections::HashMap;
use std::ffi::{CString, c_char};
use std::sync::Mutex;

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::KernelMetadata;
use cubecl_server::compiler::{KernelCacheKey, build_id_hash, compilation_store};
use cubecl_server::kernel::BufferIOAttr;
use cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use serde::{Deserialize, Serialize};

use super::kernel::Kernel;
use crate::ops::warning::warn;

/// Bytes that a block has without asking.
pub const STATIC: u32 = 48 << 10;
/// The base of dynamic memory is rounded up to this, which swizzling needs.
const ALIGN: u32 = 1024;

/// What cubecl-cuda 0.11.3 keeps of a compiled kernel: its own type of this form is
/// private.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    entrypoint_name: String,
    shared_mem_bytes: usize,
    ptx: Vec<c_char>,
    io: Option<Vec<BufferIOAttr>>,
}

/// The kernel in the form that asks for its shared memory, ready to be launched;
/// where it cannot be made ready, the one that declares it, which a driver may refuse.
pub fn form(kernel: &Kernel, like: &CubeTensor) -> Kernel {
    static FORMS: Mutex<Option<HashMap<Kernel, Kernel>>> = Mutex::new(None);
    if kernel.shared <= STATIC {
        return kernel.clone();
    }
    let mut forms = FORMS.lock().unwrap_or_else(|e| e.into_inner());
    let forms = forms.get_or_insert_default();
    // Every launch asks.
    if let Some(form) = forms.get(kernel) {
        return form.clone();
    }
    let mut asking = kernel.clone();
    asking.defines.push(("KILN_DYNAMIC_SHARED", 1));
    let form = match place(&asking, like) {
        Some(()) => asking,
        None => kernel.clone(),
    };
    forms.insert(kernel.clone(), form.clone());
    form
}

/// Puts the kernel among cubecl's compiled ones; `None` where that did not work.
fn place(kernel: &Kernel, like: &CubeTensor) -> Option<()> {
    // cubecl's namespace for kernels that NVRTC compiled for this card.
    let architecture = &like.client.properties().identity.fingerprint;
    let open = || compilation_store::<_, Entry>("cuda", format!("{architecture}-cpp"));
    let key = KernelCacheKey::new(&kernel.id(), build_id_hash());
    let wanted = (kernel.shared + ALIGN) as usize;
    let is_there = || Some(open()?.remove(&key)?.shared_mem_bytes == wanted);
    if is_there() == Some(true) {
        return Some(());
    }
    let entry = Entry {
        entrypoint_name: kernel.entry.into(),
        shared_mem_bytes: wanted,
        ptx: compile(&kernel.text(), super::capability(like)?)?,
        io: None,
    };
    // Another process may have been faster; what counts is what can be read back.
    let _ = open()?.insert(key, entry);
    is_there().filter(|is| *is).map(|_| ())
}

/// PTX with its closing zero.
fn compile(text: &str, capability: u32) -> Option<Vec<c_char>> {
    let options = CompileOptions {
        options: vec![architecture(capability), "-lineinfo".into()],
        ..Default::default()
    };
    match compile_ptx_with_opts(text, options) {
        Ok(ptx) => {
            let ptx = CString::new(ptx.to_src()).ok()?;
            let bytes = ptx.into_bytes_with_nul();
            Some(bytes.into_iter().map(|byte| byte as c_char).collect())
        }
        Err(why) => {
            warn(&format!("a CUDA kernel does not compile: {why:?}"));
            None
        }
    }
}

/// NVRTC's option. What is Hopper's alone has an architecture of its own.
fn architecture(capability: u32) -> String {
    let alone = if capability == super::HOPPER { "a" } else { "" };
    format!("--gpu-architecture=compute_{capability}{alone}")
}

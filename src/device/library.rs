//! Shared libraries by name, opened as cudarc opens them, so that what is found
//! here is what burn-cuda will load.

use std::ffi::{CStr, CString, OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::NonNull;

/// The CUDA release that cudarc is built for where no toolkit stands beside the
/// compiler (its feature `fallback-latest`): it decides names such as `.so.13`.
const CUDA_MAJOR: u32 = 13;

/// The file names under which cudarc 0.19 looks for a library of CUDA, in its
/// order (`get_lib_name_candidates`). Those with a 64 in them are of Windows, but
/// it tries them everywhere.
pub fn candidates(library: &str) -> Vec<String> {
    let major = CUDA_MAJOR;
    let file = format!("lib{library}");
    let mut names = vec![format!("{file}.so"), format!("{file}64.so")];
    let (windows, number) = (format!("_{major}"), major.to_string());
    for end in [windows.as_str(), "_10", "_11", "_12", "_9"] {
        names.push(format!("{file}64{end}.so"));
    }
    for end in [number.as_str(), "12", "11", "10", "9", "1"] {
        names.push(format!("{file}.so.{end}"));
    }
    names
}

/// A library of the process. It is never closed: drivers do not like it.
pub struct Library {
    handle: NonNull<c_void>,
    /// The name under which it was found.
    pub name: String,
}

impl Library {
    /// Opens the first of `names` that the loader finds: in `LD_LIBRARY_PATH`, the
    /// loader's cache and the system's folders, or at its path where a name has a
    /// slash.
    pub fn open(names: &[String]) -> Option<Library> {
        names.iter().find_map(|name| {
            let file = CString::new(name.as_str()).ok()?;
            // SAFETY: the name ends with a zero byte. Loading runs the library's
            // initialisers, which is what burn-cuda would do as well.
            let handle = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
            Some(Library {
                handle: NonNull::new(handle)?,
                name: name.clone(),
            })
        })
    }

    /// The function `name`, if the library has it.
    ///
    /// # Safety
    /// `F` must be a function pointer of the signature that the library documents.
    pub unsafe fn function<F: Copy>(&self, name: &CStr) -> Option<F> {
        assert_eq!(size_of::<F>(), size_of::<*mut c_void>());
        // SAFETY: the handle is open and the name ends with a zero byte.
        let address = unsafe { libc::dlsym(self.handle.as_ptr(), name.as_ptr()) };
        let address = NonNull::new(address)?.as_ptr();
        // SAFETY: both are as wide; the caller vouches for the signature.
        Some(unsafe { std::mem::transmute_copy::<*mut c_void, F>(&address) })
    }

    /// The file that holds `function`, where the loader tells.
    pub fn file(&self, function: &CStr) -> Option<PathBuf> {
        // SAFETY: as in `function`; dladdr only fills the struct it is given.
        let name = unsafe {
            let address = libc::dlsym(self.handle.as_ptr(), function.as_ptr());
            let mut info: libc::Dl_info = std::mem::zeroed();
            if address.is_null() || libc::dladdr(address, &mut info) == 0 {
                return None;
            }
            if info.dli_fname.is_null() {
                return None;
            }
            CStr::from_ptr(info.dli_fname).to_bytes().to_vec()
        };
        Some(PathBuf::from(OsStr::from_bytes(&name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_that_cudarc_tries() {
        let names = candidates("nvrtc");
        assert_eq!(names[0], "libnvrtc.so");
        for name in ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc64_13.so"] {
            assert!(names.contains(&name.to_string()), "{name}");
        }
        assert!(candidates("cuda").contains(&"libcuda.so.1".to_string()));
    }

    #[test]
    fn a_missing_library_is_none_and_a_present_one_has_its_functions() {
        assert!(Library::open(&["libnone-of-that-name.so.7".into()]).is_none());
        assert!(Library::open(&["with\0zero".into()]).is_none());
        let text = "neither library nor program";
        let dir = tempfile::tempdir().unwrap();
        let broken = dir.path().join("libcuda.so.1");
        std::fs::write(&broken, text).unwrap();
        assert!(Library::open(&[broken.to_string_lossy().into_owned()]).is_none());
        // Of the C library, which every process has.
        let names = ["libnone.so", "libc.so.6", "libSystem.dylib"].map(String::from);
        let library = Library::open(&names).unwrap();
        // SAFETY: abs takes and gives an int.
        let abs = unsafe { library.function::<unsafe extern "C" fn(i32) -> i32>(c"abs") };
        // SAFETY: as above.
        assert_eq!(unsafe { abs.unwrap()(-3) }, 3);
        // SAFETY: it is not there.
        let none = unsafe { library.function::<unsafe extern "C" fn()>(c"cuInitOfNobody") };
        assert!(none.is_none());
        assert!(library.file(c"abs").is_some());
        assert!(library.file(c"cuInitOfNobody").is_none());
    }
}

//! Which version of ONNX Runtime a library is.
//!
//! The crate `ort` reads it, to see whether it is new enough, and keeps it to itself; a report has to say what ran the models. The
//! one function for it has to be looked up in the library, which no safe interface offers: this file is the feature's `unsafe` code.

use std::ffi::CStr;
use std::path::Path;

use libloading::{Library, Symbol};
use ort::sys::OrtApiBase;

/// The version of a library that `ort` has loaded already, `1.32.0` say; `None` if it does not tell.
pub(super) fn of(path: &Path) -> Option<String> {
    #[allow(unsafe_code)]
    // SAFETY: `ort` has loaded this very library, so nothing is run by loading it once more, and it stays loaded when this handle
    // goes. `ort` has called both functions with these types, as ONNX Runtime's C interface declares them since its first version:
    // the base is a static that is never null, the version a static string that ends in 0.
    let text = unsafe {
        let library = Library::new(path).ok()?;
        let base: Symbol<unsafe extern "C" fn() -> *const OrtApiBase> =
            library.get(b"OrtGetApiBase").ok()?;
        let base = base().as_ref()?;
        CStr::from_ptr((base.GetVersionString)()).to_owned()
    };
    Some(text.to_string_lossy().into_owned())
}

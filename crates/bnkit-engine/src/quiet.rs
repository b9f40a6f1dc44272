//! tract panics on some models where it should return an error. Here such a panic becomes an error, and prints nothing.
//!
//! The panic hook is global, so it is replaced once by one that stays silent on threads that said so in a thread-local flag and
//! calls the previous hook on all others. Nothing is restored: a hook that is put back while another thread is inside here would
//! print that thread's panic.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// `Some` while this thread is inside [`catch`]; the panic's place and text end up here.
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `work` of tract's; a panic in it becomes `Err` with a message that says so.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_panic(work).map_err(|text| format!("the engine panicked: {text}"))
}

/// Runs `work`, and prints nothing if it panics: for code of others that panics on some inputs where it should return an error.
///
/// # Errors
/// The message of the panic.
pub fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let silent = CAUGHT.with(|caught| {
                let Ok(mut slot) = caught.try_borrow_mut() else {
                    return false;
                };
                let Some(text) = slot.as_mut() else {
                    return false;
                };
                *text = info.payload_as_str().unwrap_or("no message").to_owned();
                true
            });
            if !silent {
                previous(info);
            }
        }));
    });
    let outer = CAUGHT.with(|caught| caught.replace(Some(String::new())));
    let result = catch_unwind(AssertUnwindSafe(work));
    let text = CAUGHT
        .with(|caught| caught.replace(outer))
        .unwrap_or_default();
    result.map_err(|_| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_text() {
        let error = catch(|| -> u8 { panic!("index {} out of range", 7) }).unwrap_err();
        assert_eq!(error, "the engine panicked: index 7 out of range");
        assert_eq!(catch(|| 5), Ok(5));
    }

    #[test]
    fn catches_nest_and_work_on_many_threads() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let outer = catch(|| {
                        assert!(catch(|| panic!("inner")).is_err());
                        panic!("outer")
                    });
                    let outer: Result<(), String> = outer;
                    assert_eq!(outer.unwrap_err(), "the engine panicked: outer");
                });
            }
        });
    }
}

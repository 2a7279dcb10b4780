//! Memory that lives as long as the plan.

use std::ffi::CStr;

use accord_outcome::{Failure, Result};
use accord_stage::{Str, Strings};
use accord_sys::exec::CStrArray;
use bumpalo::Bump;

/// Where the plan's strings and lists are written down.
#[derive(Debug, Clone, Copy)]
pub struct Pad<'a>(pub &'a Bump);

impl<'a> Pad<'a> {
    /// A C string.
    ///
    /// # Errors
    /// A NUL inside: the kernel would see another name than the user wrote.
    pub fn text(self, text: impl AsRef<[u8]>) -> Result<Str<'a>> {
        let text = text.as_ref();
        let copy = self.0.alloc_slice_fill_copy(text.len().saturating_add(1), 0);
        if let Some(room) = copy.get_mut(..text.len()) {
            room.copy_from_slice(text);
        }
        match CStr::from_bytes_with_nul(copy) {
            Ok(copy) => Ok(Str(copy)),
            Err(_) => Err(Failure::text("read string", text, "holds a NUL")),
        }
    }

    /// A copy of a list.
    pub fn slice<T: Copy>(self, list: &[T]) -> &'a [T] {
        self.0.alloc_slice_copy(list)
    }

    /// An array for `execve(2)`.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub fn strings<S: AsRef<[u8]>>(self, list: &[S]) -> Result<Strings<'a>> {
        let mut strings: Vec<&'a CStr> = Vec::with_capacity(list.len());
        for string in list {
            strings.push(self.text(string)?.0);
        }
        let strings = self.0.alloc_slice_copy(&strings);
        let length = strings.len().saturating_add(1);
        let pointers = self.0.alloc_slice_fill_copy(length, std::ptr::null());
        match CStrArray::new(strings, pointers) {
            Ok(array) => Ok(Strings(array)),
            Err(errno) => Err(Failure::errno("build", "argument list", errno.raw_os_error())),
        }
    }
}

//! Having memory come before it is needed.

/// Bytes that come at once.
const LINE_SIZE: usize = 64;

/// Asks the processor to fetch all lines of `value`. It is a hint: nothing waits for it.
#[inline]
pub fn prefetch<T>(value: &T) {
    prefetch_at(std::ptr::from_ref(value));
}

/// As [`prefetch`], of what may be no such value: where it would be is all that is asked for.
#[inline]
pub fn prefetch_at<T>(value: *const T) {
    let start = value.cast::<u8>();
    for offset in (0..size_of::<T>()).step_by(LINE_SIZE) {
        prefetch_line(start.wrapping_add(offset));
    }
    // A value that begins within a line may end in one more.
    prefetch_line(start.wrapping_add(size_of::<T>().saturating_sub(1)));
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn prefetch_line(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing that the program could see, and no address makes it fail.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn prefetch_line(_at: *const u8) {}

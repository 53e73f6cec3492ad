//! How the C library's allocator gives memory back.
//!
//! Left alone, glibc raises the size from which a block is mapped by itself to that of the largest
//! block that was freed so far. After a large context was read, the buffers of layers come from
//! heaps of their threads then, which are never given back: a third of the peak was such memory.

/// Keeps large blocks out of the heaps: each is given back as soon as it is freed.
pub(crate) fn return_large_blocks() {
    #[cfg(target_env = "gnu")]
    gnu::set_mapped_size();
}

#[cfg(target_env = "gnu")]
mod gnu {
    use std::ffi::c_int;

    /// From malloc.h.
    const M_MMAP_THRESHOLD: c_int = -3;
    /// What glibc starts with; once it is set, it stays.
    const MAPPED: c_int = 128 << 10;

    pub(super) fn set_mapped_size() {
        // It fails only for sizes that are too large.
        let _ = mallopt(M_MMAP_THRESHOLD, MAPPED);
    }

    #[expect(unsafe_code, reason = "neither the standard library nor rustix has this")]
    // SAFETY: this is the signature in malloc.h. It takes numbers alone, and may be called at any
    // time.
    unsafe extern "C" {
        safe fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }
}

//! How the C library's allocator gives memory back.
//!
//! Left alone, glibc raises the size from which a block is mapped by itself to that of the largest
//! block that was freed so far, and gives each thread a heap of its own. After a large context was
//! read, the buffers of layers come from these heaps then, which are seldom given back, and what one
//! thread freed is of no use to the others: a third of the peak was such memory.

/// Keeps large blocks out of the heap, so that each is given back as soon as it is freed, and the
/// others in one heap. Has to come before the first thread.
pub(crate) fn share_and_give_back() {
    #[cfg(target_env = "gnu")]
    gnu::set_up();
}

#[cfg(target_env = "gnu")]
mod gnu {
    use std::ffi::c_int;

    /// From malloc.h.
    const M_MMAP_THRESHOLD: c_int = -3;
    const M_ARENA_MAX: c_int = -8;
    /// Once it is set, it stays. Buffers of the tar stream are larger, and used again; compressed
    /// segments are mostly smaller: to map each would cost a tenth of the time.
    const MAPPED: c_int = 1 << 20;

    pub(super) fn set_up() {
        // These fail only for sizes that are too large. Threads seldom wait for the one heap: each
        // has some small blocks of its own (since glibc 2.26), and works on files meanwhile.
        let _ = mallopt(M_MMAP_THRESHOLD, MAPPED);
        let _ = mallopt(M_ARENA_MAX, 1);
    }

    #[expect(unsafe_code, reason = "neither the standard library nor rustix has this")]
    // SAFETY: this is the signature in malloc.h. It takes numbers alone, and may be called at any
    // time.
    unsafe extern "C" {
        safe fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }
}

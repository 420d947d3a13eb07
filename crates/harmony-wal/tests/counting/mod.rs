//! An allocator that counts what each thread takes, for the tests that bound it.

#![expect(
    unsafe_code,
    reason = "an allocator is unsafe to implement; it passes everything on and adds numbers up"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Counting;

/// What a thread took and gave back. Other threads, and so other tests, do not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Blocks taken, moved ones too.
    pub(crate) allocations: u64,
    /// Bytes taken less bytes given back.
    pub(crate) live_bytes: i64,
    /// Most that `live_bytes` ever was; both blocks of a move count.
    pub(crate) peak_bytes: i64,
}

thread_local! {
    // A constant without destructor: reading it allocates nothing.
    static COUNTS: Cell<Counts> =
        const { Cell::new(Counts { allocations: 0, live_bytes: 0, peak_bytes: 0 }) };
}

/// What `run` took on this thread, beside its result. May be nested.
pub(crate) fn count<T>(run: impl FnOnce() -> T) -> (T, Counts) {
    let before = COUNTS.get();
    COUNTS.set(Counts::default());
    let result = run();
    let counts = COUNTS.get();
    COUNTS.set(Counts {
        allocations: before.allocations + counts.allocations,
        live_bytes: before.live_bytes + counts.live_bytes,
        peak_bytes: before.peak_bytes.max(before.live_bytes + counts.peak_bytes),
    });
    (result, counts)
}

fn taken(bytes: usize) {
    add(1, i64::try_from(bytes).unwrap_or(i64::MAX));
}

fn given(bytes: usize) {
    add(0, -i64::try_from(bytes).unwrap_or(i64::MAX));
}

fn add(allocations: u64, bytes: i64) {
    let mut counts = COUNTS.get();
    counts.allocations += allocations;
    counts.live_bytes += bytes;
    counts.peak_bytes = counts.peak_bytes.max(counts.live_bytes);
    COUNTS.set(counts);
}

// SAFETY: every call goes to the system's allocator as it came, and nothing here allocates or unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        given(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        taken(bytes);
        given(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, bytes) }
    }
}

//! The program; everything is in the library.

/// A third of all instructions per message were the C library's allocator: docs/decisions/0008-allocator.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    packhorse::cli::main()
}

use std::process::ExitCode;

/// Training allocates and frees the same large buffers at every step; glibc would map and unmap them each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dpo_eval::cli::main(std::env::args_os())
}

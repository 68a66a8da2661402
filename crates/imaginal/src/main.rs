//! The `imaginal` command: see [`imaginal::cli`].

fn main() -> std::process::ExitCode {
    imaginal::cli::main()
}

//! The `ringtide` command: parse, run, print the error, exit code. All else is in the library.

use std::io::Write;
use std::process::ExitCode;

use ringtide::meta::text::escape;

fn main() -> ExitCode {
    let code = match ringtide::cli::run(std::env::args_os()) {
        Ok(()) => 0,
        Err(ringtide::error::Error::Stdout(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            // A stderr that nobody reads must not change how this ends.
            let _ = writeln!(std::io::stderr(), "ringtide: {}", escape(&error.to_string()));
            error.exit_code()
        }
    };
    // Threads that wait for a dead tracker or resolver are not waited for.
    std::process::exit(code.into())
}

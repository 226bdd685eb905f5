//! The `ringtide` command: parse, run, print the error, exit code. All else is in the library.

use std::io::Write;
use std::process::ExitCode;

use ringtide::meta::text::escape;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        // One line as of any error. Whoever wants more asks for the backtrace.
        let payload = panic.payload();
        let text =
            payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("a panic without a word");
        let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
        let _ = writeln!(std::io::stderr(), "{}", internal_error(&place, text));
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            let _ = writeln!(std::io::stderr(), "{backtrace}");
        }
    }));
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

/// What is said of a panic, whose text may have the words of strangers in it.
fn internal_error(place: &str, text: &str) -> String {
    format!("ringtide: internal error{place}: {}", escape(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_in_one_line_without_hidden_characters() {
        let line = internal_error(" at x", "left: 1\nright: \x1b[2J");
        assert_eq!(line, "ringtide: internal error at x: left: 1\\nright: \\u{1b}[2J");
    }
}

//! The last line of the terminal, and what is printed above it.
//!
//! The cursor waits in the first column of the bar. So a bar that is wrapped by a terminal that becomes narrower is
//! behind the cursor as a whole, and what clears the screen from there clears it.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use crate::meta::text::escape;

/// From the cursor to the end of the screen.
const ERASE: &str = "\x1b[J";
/// The width of a terminal that does not tell.
const WIDTH_DEFAULT: usize = 80;
/// How long is waited for who cannot wait for a reader.
const MOMENT: Duration = Duration::from_millis(100);

/// The bar that is shown. One for the process, as it has one terminal.
static BAR: Mutex<Option<String>> = Mutex::new(None);

/// Draws the bar that the function makes for the terminal's width, which is asked each time.
pub(super) fn draw(line: impl FnOnce(usize) -> String) {
    let mut bar = bar();
    let line = line(width());
    write(&format!("\r{line}{ERASE}\r"));
    *bar = Some(line);
}

/// Whether there is a bar.
pub(super) fn is_drawn() -> bool {
    bar().is_some()
}

/// Removes the bar.
pub(crate) fn clear() {
    if bar().take().is_some() {
        write(&format!("\r{ERASE}"));
    }
}

/// Prints one line on stderr, above the bar if there is one, with what is hidden in it escaped. Where that cannot be
/// done, the download goes on unseen.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let line = line.to_string();
    let line = escape(&line);
    match &*bar() {
        Some(bar) => write(&format!("\r{ERASE}{line}\n{bar}\r")),
        None => write(&format!("{line}\n")),
    }
}

/// Does something to the screen, and waits no longer than a moment for it: where nobody reads stderr, or the terminal
/// is held, whoever writes there waits, and with him all who want the bar.
pub(crate) fn briefly(job: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel::<()>();
    let run = move || {
        job();
        drop(done);
    };
    if thread::Builder::new().name("screen".to_owned()).spawn(run).is_ok() {
        let _ = is_done.recv_timeout(MOMENT);
    }
}

/// One write, so that nothing of another process comes in between.
fn write(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    if size == 0 { WIDTH_DEFAULT } else { size }
}

fn bar() -> MutexGuard<'static, Option<String>> {
    BAR.lock().unwrap_or_else(PoisonError::into_inner)
}

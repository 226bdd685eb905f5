//! What a core runs on: an io_uring, or readiness (epoll) where io_uring is switched off.
//!
//! Both have tokio's timers and tasks, so that all above `socket` is the same on either.

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::str::FromStr;
use std::sync::mpsc;
use std::thread;

use tokio::runtime;
use tokio::task::LocalSet;

use super::uring;

/// How bytes get from sockets to memory and back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Backend {
    /// The kernel is told of operations and says when they are complete.
    #[default]
    Uring,
    /// The kernel says which sockets are ready, and the thread of the core does the rest.
    Epoll,
}

impl Backend {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Uring, Self::Epoll]
            .into_iter()
            .find(|backend| backend.name() == name)
            .ok_or_else(|| format!("'{name}' is not uring, epoll or auto"))
    }
}

/// The runtime of one core.
pub(super) enum Runtime {
    /// Never dropped, not even by a panic: a tokio-uring driver that is dropped frees what the operations of dropped
    /// futures still write to, before it cancels them.
    Uring(ManuallyDrop<tokio_uring::Runtime>),
    Epoll(runtime::Runtime),
}

impl Runtime {
    /// A runtime for the thread that calls, as a ring belongs to the thread that makes it.
    pub(super) fn new(backend: Backend) -> io::Result<Self> {
        match backend {
            Backend::Uring => Ok(Self::Uring(ManuallyDrop::new(uring::runtime()?))),
            Backend::Epoll => Ok(Self::Epoll(runtime::Builder::new_current_thread().enable_all().build()?)),
        }
    }

    /// Runs a future, and the tasks that it spawns meanwhile, until it is done.
    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        match self {
            Self::Uring(runtime) => runtime.block_on(future),
            Self::Epoll(runtime) => LocalSet::new().block_on(runtime, future),
        }
    }
}

/// Starts a thread that runs on a runtime of its own. What comes back hears of its end.
///
/// # Errors
/// When the system gives no thread, or not what the backend needs.
pub(super) fn spawn<F: Future<Output = ()>>(
    name: String,
    backend: Backend,
    work: impl FnOnce() -> F + Send + 'static,
) -> io::Result<mpsc::Receiver<()>> {
    let (started, result) = mpsc::channel();
    let (stopping, stopped) = mpsc::channel();
    thread::Builder::new().name(name).spawn(move || match Runtime::new(backend) {
        Ok(runtime) => {
            let _ = started.send(Ok(()));
            runtime.block_on(work());
            let _ = stopping.send(());
        }
        Err(error) => drop(started.send(Err(error))),
    })?;
    result.recv().map_err(io::Error::other)??;
    Ok(stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_is_found_by_its_name() {
        for backend in [Backend::Uring, Backend::Epoll] {
            assert_eq!(backend.to_string().parse(), Ok(backend));
        }
        assert_eq!("select".parse::<Backend>(), Err("'select' is not uring, epoll or auto".to_owned()));
    }
}

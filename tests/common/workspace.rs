//! The directory of one test process, and the janitor that outlives it.
//!
//! `Drop` does not run after SIGKILL, an abort or at the end of a test binary for statics. So a small shell script
//! reads from a pipe whose other end only this process holds: when the pipe closes, however that came about, the
//! script kills the children that were never reaped and removes the directory.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use tempfile::TempDir;

/// Reads `+PID` (started) and `-PID` (reaped) lines; at the end of the input kills what is left and removes `$1`.
const JANITOR: &str = r#"
trap '' INT TERM HUP
alive=' '
while read -r line; do
    case $line in
        +*) alive="$alive${line#+} " ;;
        -*) alive="${alive%% "${line#-}" *} ${alive#* "${line#-}" }" ;;
    esac
done
for pid in $alive; do kill -KILL "$pid"; done
rm -rf -- "$1"
"#;

struct Workspace {
    root: PathBuf,
    /// Never waited for: it ends after this process.
    janitor: Mutex<Child>,
}

fn workspace() -> &'static Workspace {
    static WORKSPACE: OnceLock<Workspace> = OnceLock::new();
    WORKSPACE.get_or_init(|| {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tests-{}", std::process::id()));
        fs::create_dir_all(&root).expect("the workspace can be made");
        let janitor = Command::new("/bin/sh")
            .args(["-c", JANITOR, "janitor"])
            .arg(&root)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the janitor starts");
        Workspace { root, janitor: Mutex::new(janitor) }
    })
}

/// A new directory of this test process; removed when dropped, or by the janitor.
pub fn temp_dir(prefix: &str) -> TempDir {
    tempfile::Builder::new()
        .prefix(&format!("{prefix}-"))
        .tempdir_in(&workspace().root)
        .expect("a directory can be made in the workspace")
}

/// Tells the janitor of a child that must not outlive this process.
pub fn child_started(pid: u32) {
    tell(&format!("+{pid}\n"));
}

/// Tells the janitor that a child was reaped, so that its number may belong to somebody else from now on.
pub fn child_reaped(pid: u32) {
    tell(&format!("-{pid}\n"));
}

fn tell(line: &str) {
    let mut janitor = workspace().janitor.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let pipe = janitor.stdin.as_mut().expect("the janitor's input is piped");
    pipe.write_all(line.as_bytes()).expect("the janitor listens");
}

/// A TCP port that nobody listens on at `ip`. Another process may take it before it is used: whoever starts a server
/// on it tries again with a new one.
pub fn free_port(ip: IpAddr) -> u16 {
    let listener = TcpListener::bind((ip, 0)).expect("the loopback address can be bound");
    listener.local_addr().expect("a bound socket has an address").port()
}

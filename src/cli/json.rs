//! What `--json` prints, on stdout: one object a command, of its result or of its failure. `docs/json.md` has the keys.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};

use crate::error::Error;
use crate::meta::magnet::Magnet;
use crate::meta::text::escape_json;

/// An object as a line.
pub(super) fn line(object: &Value) -> String {
    escape_json(&object.to_string()) + "\n"
}

/// Whether a command line asks for JSON, also one in which something else is wrong.
pub(super) fn is_asked_for(args: &[OsString]) -> bool {
    let options = args.iter().take_while(|arg| arg.as_bytes() != b"--");
    options.map(|arg| arg.as_bytes()).any(|arg| arg == b"--json" || arg.starts_with(b"--json="))
}

/// Why a command failed.
pub(super) fn failure(error: &Error) -> Value {
    let mut told = json!({
        "code": error.exit_code(),
        "kind": error.kind(),
        "message": error.to_string(),
    });
    if let Some(progress) = error.progress() {
        told["bytes_verified"] = progress.done.into();
        told["bytes"] = progress.total.into();
    }
    json!({ "error": told })
}

/// What a link says.
pub(super) fn link(magnet: &Magnet) -> Value {
    let peers = magnet.peers.iter().map(ToString::to_string);
    let select = magnet.select.iter().map(|range| [*range.start(), *range.end()]);
    json!({
        "info_hash": magnet.info_hash.to_string(),
        "name": magnet.name,
        "trackers": magnet.trackers,
        "peers": peers.collect::<Vec<_>>(),
        "web_seeds": magnet.web_seeds,
        "select": select.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Progress;

    #[test]
    fn failures_have_code_kind_and_progress() {
        let error = Error::Interrupted { signal: 2, progress: Progress { done: 3, total: 9 } };
        let told = &failure(&error)["error"];
        assert_eq!((&told["code"], &told["kind"]), (&json!(130), &json!("interrupted")));
        assert_eq!((&told["bytes_verified"], &told["bytes"]), (&json!(3), &json!(9)));
        let told = failure(&Error::Usage("a\u{202e}".to_owned()));
        assert_eq!(line(&told), "{\"error\":{\"code\":2,\"kind\":\"usage\",\"message\":\"a\\u202e\"}}\n");
    }

    #[test]
    fn json_is_asked_for_before_the_end_of_the_options() {
        let asked = |text: &str| is_asked_for(&text.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(asked("info --json x") && asked("info x --json=events"));
        assert!(!asked("info x") && !asked("info -- --json") && !asked("info --jsonx"));
    }
}

//! The command line as users type it, put into the words that argh knows.
//!
//! argh takes `--name value` and `-n value` and nothing else, in UTF-8. What is done here before: `--name=value`,
//! `-nvalue`, `-abn value`, options given again (the last one counts), `--`, any order, words that are not UTF-8, help
//! and version wherever they stand, a torrent without a command, and proposals for what was misspelt. What the commands
//! and their options are is asked of argh's own definitions, so that there is one list of them.

pub(super) mod bytes;
mod closest;
mod token;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use argh::{CommandInfoWithArgs, Optionality, SubCommandInfo};

use self::closest::closest;
use self::token::{Token, tokens};
use super::source;
use crate::error::Error;

/// What a command line asks for.
#[derive(Debug)]
pub(super) enum Line {
    /// The help of a command, or of the program.
    Help(Option<&'static str>),
    /// The version.
    Version,
    /// The words of a command, for argh: its name, its options, `--`, its arguments.
    Command(Vec<String>),
}

/// The command that is meant where only a torrent is named.
const DEFAULT_COMMAND: &str = "download";

/// Reads the arguments after the program's name.
pub(super) fn read(args: &[OsString], commands: &'static [SubCommandInfo]) -> Result<Line, Error> {
    let find = |name: &OsStr| commands.iter().find(|command| name == command.name).map(|info| &info.command);
    if args.first().is_some_and(|first| first == "help") {
        return help(args.get(1), commands);
    }
    if args.first().is_some_and(|first| first == "version") {
        return Ok(Line::Version);
    }
    if let Some((name, rest)) = args.split_first()
        && let Some(command) = find(name)
    {
        return read_command(command, rest);
    }
    // Options may stand before the command, or there is none.
    let Some(default) = find(OsStr::new(DEFAULT_COMMAND)) else { return Err(no_command()) };
    let found = tokens(default, args).map_err(|wrong| wrong.error(None))?;
    for (at, token) in found {
        match token {
            Token::Help => return Ok(Line::Help(None)),
            Token::Version => return Ok(Line::Version),
            Token::Option { .. } => {}
            Token::Word(word) => {
                if let Some(command) = find(&word) {
                    let others = args.iter().enumerate().filter(|&(index, _)| index != at);
                    let others: Vec<OsString> = others.map(|(_, arg)| arg.clone()).collect();
                    return read_command(command, &others);
                }
                return if source::is_likely(&word) {
                    read_command(default, args)
                } else {
                    Err(unknown_command(&word, commands))
                };
            }
        }
    }
    Err(no_command())
}

fn help(command: Option<&OsString>, commands: &'static [SubCommandInfo]) -> Result<Line, Error> {
    let Some(name) = command.filter(|name| !name.as_bytes().starts_with(b"-")) else {
        return Ok(Line::Help(None));
    };
    let found = commands.iter().find(|command| *name == command.name);
    found.map(|command| Line::Help(Some(command.name))).ok_or_else(|| unknown_command(name, commands))
}

fn no_command() -> Error {
    Error::Usage("no command given; see 'ringtide --help'".to_owned())
}

fn unknown_command(word: &OsStr, commands: &[SubCommandInfo]) -> Error {
    let word = word.to_string_lossy();
    let names = commands.iter().map(|command| command.name).chain(["help", "version"]);
    let proposal = closest(&word, names).map_or_else(
        || "neither a command nor a torrent".to_owned(),
        |name| format!("no command, did you mean '{name}'?"),
    );
    Error::Usage(format!("'{word}' is {proposal}{} see 'ringtide --help'", separator(&proposal)))
}

/// What stands between a sentence and where to read more.
fn separator(sentence: &str) -> &'static str {
    if sentence.ends_with('?') { "" } else { ";" }
}

/// Reads the words after a command's name.
fn read_command(command: &'static CommandInfoWithArgs, args: &[OsString]) -> Result<Line, Error> {
    if let [only] = args
        && only == "help"
        && !Path::new(only).exists()
    {
        return Ok(Line::Help(Some(command.name)));
    }
    let (mut options, mut words) = (Vec::new(), Vec::new());
    for (_, token) in tokens(command, args).map_err(|wrong| wrong.error(Some(command.name)))? {
        match token {
            Token::Help => return Ok(Line::Help(Some(command.name))),
            Token::Version => return Ok(Line::Version),
            Token::Word(word) => words.push(bytes::to_text(&word)),
            Token::Option { flag, value: None } => options.push((flag.long, None)),
            Token::Option { flag, value: Some(value) } => {
                if !matches!(flag.optionality, Optionality::Repeating) {
                    options.retain(|&(long, _)| long != flag.long);
                }
                options.push((flag.long, Some(bytes::to_text(&value))));
            }
        }
    }
    check_count(command, &words)?;
    let mut line = vec![command.name.to_owned()];
    for (long, value) in options {
        line.push(long.to_owned());
        line.extend(value);
    }
    line.push("--".to_owned());
    line.extend(words);
    Ok(Line::Command(line))
}

/// Whether a command has got as many arguments as it takes.
fn check_count(command: &CommandInfoWithArgs, words: &[String]) -> Result<(), Error> {
    let expected = command.positionals;
    let name = command.name;
    if let Some(missing) = expected.get(words.len()) {
        let what = missing.name.to_uppercase();
        return Err(Error::Usage(format!("{what} is missing; see 'ringtide {name} --help'")));
    }
    if let Some(surplus) = words.get(expected.len()) {
        let surplus = bytes::from_text(surplus);
        let surplus = surplus.to_string_lossy();
        return Err(Error::Usage(format!(
            "'{surplus}' is one argument too many; {name} takes {}; see 'ringtide {name} --help'",
            expected.iter().map(|word| word.name.to_uppercase()).collect::<Vec<_>>().join(" ")
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::args;
    use super::*;

    fn line(text: &str) -> String {
        let args: Vec<OsString> = text.split_whitespace().map(OsString::from).collect();
        match read(&args, args::commands()) {
            Ok(Line::Command(words)) => words.join(" "),
            Ok(Line::Help(command)) => format!("help {}", command.unwrap_or("all")),
            Ok(Line::Version) => "version".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_usual_spellings_mean_the_same() {
        for text in [
            "download -o x -q t",
            "download --output x --quiet t",
            "download --output=x -q t",
            "download -ox -q t",
            "download -o=x -q t",
            "download t -q -o x",
            "download -o y t -q --output x",
            "-o x download -q t",
            "download -o x -q -- t",
            "-o x -q t.torrent",
        ] {
            let text = line(text).replace("t.torrent", "t");
            let sorted = ["download --output x --quiet -- t", "download --quiet --output x -- t"];
            assert!(sorted.contains(&text.as_str()), "{text}");
        }
        assert_eq!(line("download -qo x t"), "download --quiet --output x -- t");
        assert_eq!(line("download -qox t"), "download --quiet --output x -- t");
        assert_eq!(line("download --peer a --peer=b t"), "download --peer a --peer b -- t");
        assert_eq!(line("download -o - -"), "download --output - -- -");
        assert_eq!(line("download --json t --json=events"), "download --json events -- t");
        assert_eq!(line("download_piece t -1"), "download_piece -- t -1");
        assert_eq!(line("info -- --help"), "info -- --help");
        assert_eq!(line("decode -1:a"), "decode -- -1:a");
    }

    #[test]
    fn a_torrent_without_a_command_is_downloaded() {
        for torrent in ["x.torrent", "dir/x", "magnet:?xt=urn:btih:x", "https://h/x", "-"] {
            assert_eq!(line(torrent), format!("download -- {torrent}"));
        }
        assert_eq!(line("./download"), "download -- ./download");
        assert_eq!(line("-- x.torrent"), "download -- x.torrent");
        assert_eq!(line("download"), "TORRENT is missing; see 'ringtide download --help'");
    }

    #[test]
    fn help_and_version_are_found_anywhere() {
        for text in ["help", "--help", "-h", "-q --help", "help --help"] {
            assert_eq!(line(text), "help all", "{text}");
        }
        for text in ["help download", "download -h", "download t --help", "download help", "-q download -qh"]
        {
            assert_eq!(line(text), "help download", "{text}");
        }
        for text in ["version", "--version", "-V", "download -V", "info --version x"] {
            assert_eq!(line(text), "version", "{text}");
        }
    }

    #[test]
    fn what_is_misspelt_is_told_with_what_was_meant() {
        for (text, expected) in [
            ("", "no command given; see 'ringtide --help'"),
            ("downlaod t", "'downlaod' is no command, did you mean 'download'? see 'ringtide --help'"),
            ("help inof", "'inof' is no command, did you mean 'info'? see 'ringtide --help'"),
            ("frobnicate", "'frobnicate' is neither a command nor a torrent; see 'ringtide --help'"),
            ("--hlep", "there is no option --hlep, did you mean --help? see 'ringtide --help'"),
            ("download --ouput x t", "there is no option --ouput, did you mean --output?"),
            ("download --no_dht t", "there is no option --no_dht, did you mean --no-dht?"),
            ("download -z t", "there is no option -z; see 'ringtide download --help'"),
            ("download -qz t", "there is no option -z"),
            ("download --out x t", "there is no option --out, did you mean --output?"),
            ("download t -o", "--output needs a value: OUT; see 'ringtide download --help'"),
            ("download --sync=yes t", "--sync takes no value, got 'yes'"),
            ("decode a b", "'b' is one argument too many; decode takes VALUE"),
        ] {
            assert!(line(text).contains(expected), "{text}: {}", line(text));
        }
    }

    #[test]
    fn words_that_are_not_text_come_through() {
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(b"caf\xe9".to_vec());
        let args = ["download".into(), "-o".into(), odd.clone(), odd.clone()];
        let Ok(Line::Command(words)) = read(&args, args::commands()) else { panic!("refused") };
        assert_eq!([bytes::from_text(&words[2]), bytes::from_text(&words[4])], [odd.clone(), odd]);
    }
}

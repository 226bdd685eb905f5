//! The words of a command line as options and arguments.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind};

use super::closest::closest;
use crate::error::Error;

/// A word, or an option with its value.
#[derive(Debug)]
pub(super) enum Token {
    Help,
    Version,
    Option {
        flag: &'static FlagInfo<'static>,
        /// `None` for a switch.
        value: Option<OsString>,
    },
    Word(OsString),
}

/// What is wrong with an option.
#[derive(Debug)]
pub(super) enum Wrong {
    /// There is no such option; maybe another one was meant.
    Unknown { given: String, meant: Option<String> },
    /// It needs a value.
    NoValue { long: &'static str, expected: String },
    /// It takes none.
    Value { long: &'static str, value: OsString },
}

impl Wrong {
    /// As it is told, with where to read more.
    pub(super) fn error(self, command: Option<&str>) -> Error {
        let text = match self {
            Self::Unknown { given, meant: Some(meant) } => {
                format!("there is no option {given}, did you mean {meant}?")
            }
            Self::Unknown { given, meant: None } => format!("there is no option {given};"),
            Self::NoValue { long, expected } => format!("{long} needs a value: {expected};"),
            Self::Value { long, value } => {
                format!("{long} takes no value, got '{}';", value.to_string_lossy())
            }
        };
        let command = command.map(|name| format!(" {name}")).unwrap_or_default();
        Error::Usage(format!("{text} see 'ringtide{command} --help'"))
    }
}

/// The one option whose value may be left out; it stands for this one then.
const JSON: (&str, &str) = ("--json", "object");

/// Takes the words apart. Each token comes with the place of its first word.
pub(super) fn tokens(
    command: &'static CommandInfoWithArgs,
    args: &[OsString],
) -> Result<Vec<(usize, Token)>, Wrong> {
    let mut found = Vec::new();
    let mut rest = args.iter().enumerate();
    while let Some((at, arg)) = rest.next() {
        let mut next = || rest.next().map(|(_, value)| value.clone());
        match arg.as_bytes() {
            b"--" => found.extend(rest.by_ref().map(|(at, word)| (at, Token::Word(word.clone())))),
            [b'-', b'-', ..] => match long(command, arg, &mut next) {
                Err(Wrong::Unknown { .. }) if takes_anything(command) => {
                    found.push((at, Token::Word(arg.clone())));
                }
                token => found.push((at, token?)),
            },
            // A single dash is a name, and what looks like a number is one.
            [b'-', first, ..] if !first.is_ascii_digit() => {
                match cluster(command, &arg.as_bytes()[1..], &mut next) {
                    Err(Wrong::Unknown { .. }) if takes_anything(command) => {
                        found.push((at, Token::Word(arg.clone())));
                    }
                    tokens => found.extend(tokens?.into_iter().map(|token| (at, token))),
                }
            }
            _ => found.push((at, Token::Word(arg.clone()))),
        }
    }
    Ok(found)
}

/// Whether a command's argument may be any bytes, also such that look like an option.
fn takes_anything(command: &CommandInfoWithArgs) -> bool {
    command.name == "decode"
}

/// Reads `--name`, `--name=value` or `--name value`.
fn long(
    command: &'static CommandInfoWithArgs,
    arg: &OsStr,
    next: &mut dyn FnMut() -> Option<OsString>,
) -> Result<Token, Wrong> {
    let mut parts = arg.as_bytes().splitn(2, |&byte| byte == b'=');
    let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let value = parts.next().map(|value| OsString::from_vec(value.to_vec()));
    match (&*name, &value) {
        ("--help", None) => return Ok(Token::Help),
        ("--version", None) => return Ok(Token::Version),
        _ => {}
    }
    let Some(flag) = command.flags.iter().find(|flag| flag.long == name) else {
        let known = command.flags.iter().map(|flag| flag.long).chain(["--help", "--version"]);
        let meant = closest(&name, known).map(str::to_owned);
        return Err(Wrong::Unknown { given: name, meant });
    };
    with_value(flag, value, next)
}

/// Reads `-abc`: switches, of which the last may be an option with its value behind it or in the next word.
fn cluster(
    command: &'static CommandInfoWithArgs,
    letters: &[u8],
    next: &mut dyn FnMut() -> Option<OsString>,
) -> Result<Vec<Token>, Wrong> {
    let mut found = Vec::new();
    let mut rest = letters;
    while let [letter, behind @ ..] = rest {
        rest = behind;
        let letter = char::from(*letter);
        let flag = command.flags.iter().find(|flag| flag.short == Some(letter));
        match flag {
            None if letter == 'h' => found.push(Token::Help),
            None if letter == 'V' => found.push(Token::Version),
            None => return Err(unknown_letter(command, letters, letter)),
            Some(flag) if matches!(flag.kind, FlagInfoKind::Switch) && !rest.starts_with(b"=") => {
                found.push(Token::Option { flag, value: None });
            }
            Some(flag) => {
                let value = rest.strip_prefix(b"=").unwrap_or(rest);
                let value = (!rest.is_empty()).then(|| OsString::from_vec(value.to_vec()));
                found.push(with_value(flag, value, next)?);
                break;
            }
        }
    }
    Ok(found)
}

/// A letter that is no option. `-output` is `--output` with a dash too few.
fn unknown_letter(command: &CommandInfoWithArgs, letters: &[u8], letter: char) -> Wrong {
    let word = String::from_utf8_lossy(letters);
    let name = word.split('=').next().unwrap_or_default();
    let is_name = |flag: &&FlagInfo<'_>| flag.long.strip_prefix("--") == Some(name);
    let meant = command.flags.iter().find(is_name).map(|flag| flag.long.to_owned());
    let meant = meant.or_else(|| matches!(name, "help" | "version").then(|| format!("--{name}")));
    let given = if meant.is_some() || !letter.is_ascii() { format!("-{word}") } else { format!("-{letter}") };
    Wrong::Unknown { given, meant }
}

fn with_value(
    flag: &'static FlagInfo<'static>,
    value: Option<OsString>,
    next: &mut dyn FnMut() -> Option<OsString>,
) -> Result<Token, Wrong> {
    let long = flag.long;
    let value = match (&flag.kind, value) {
        (FlagInfoKind::Switch, Some(value)) => return Err(Wrong::Value { long, value }),
        (FlagInfoKind::Switch, None) => None,
        (FlagInfoKind::Option { .. }, Some(value)) => Some(value),
        (FlagInfoKind::Option { .. }, None) if long == JSON.0 => Some(JSON.1.into()),
        (FlagInfoKind::Option { arg_name }, None) => {
            Some(next().ok_or_else(|| Wrong::NoValue { long, expected: arg_name.to_uppercase() })?)
        }
    };
    Ok(Token::Option { flag, value })
}

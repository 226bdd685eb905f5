//! The help texts: what argh knows of the commands, in groups, for terminals of 80 columns.

use std::fmt::Write as _;

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, SubCommandInfo};

/// Columns of a line.
const WIDTH: usize = 80;
/// The column in which descriptions begin.
const INDENT: usize = 26;

/// The headings of options and which stand below each; the last takes all others.
const GROUPS: &[(&str, &[&str])] = &[
    ("Output", &["--output", "--overwrite", "--sync", "--summary", "--files", "--scrape"]),
    ("Messages", &["--json", "--quiet", "--verbose"]),
    (
        "Peers",
        &["--peer", "--port", "--no-dht", "--dht-node", "--no-lsd", "--no-pex", "--encryption", "--timeout"],
    ),
    ("Tuning", &["--io", "--backend", "--threads"]),
    ("Others", &[]),
];

/// The help of a command, or of the program.
pub(super) fn of(name: Option<&str>, commands: &[SubCommandInfo]) -> String {
    let found = name.and_then(|name| commands.iter().find(|command| command.name == name));
    found.map_or_else(|| of_program(commands), |found| of_command(&found.command))
}

fn of_program(commands: &[SubCommandInfo]) -> String {
    let mut text = String::from(
        "Usage: ringtide TORRENT\n       ringtide COMMAND [OPTIONS] ARGUMENTS\n\nDownloads torrents, fast, and \
         verifies every byte. A TORRENT is a file, - for\nstandard input, a URL, or a magnet link in quotes.\n\n\
         Commands:\n",
    );
    for command in commands {
        entry(&mut text, command.name, command.command.description);
    }
    entry(&mut text, "help [COMMAND]", "Print this text, or more of a command.");
    entry(&mut text, "version", "Print the version.");
    text.push_str("\nOptions:\n");
    own_options(&mut text);
    text.push_str(
        "\nExamples:\n  ringtide debian.torrent\n  ringtide download -o debian.iso debian.torrent\n  ringtide info \
         --summary 'magnet:?xt=urn:btih:...'\n",
    );
    text
}

fn of_command(command: &CommandInfoWithArgs) -> String {
    let name = command.name;
    let mut text = format!("Usage: ringtide {name} [OPTIONS]");
    for word in command.positionals {
        let _ = write!(text, " {}", word.name.to_uppercase());
    }
    text.push_str("\n\n");
    wrap(&mut text, command.description, 0);
    text.push_str("\n\nArguments:\n");
    for word in command.positionals {
        entry(&mut text, &word.name.to_uppercase(), word.description);
    }
    let mut rest: Vec<&FlagInfo<'_>> = command.flags.iter().filter(|flag| flag.long != "--help").collect();
    for (heading, names) in GROUPS {
        let (group, others) =
            rest.into_iter().partition::<Vec<_>, _>(|flag| names.is_empty() || names.contains(&flag.long));
        rest = others;
        if !group.is_empty() {
            let _ = writeln!(text, "\n{heading}:");
            group.iter().for_each(|flag| option(&mut text, flag));
        }
    }
    text.push_str("\nHelp:\n");
    own_options(&mut text);
    text.push_str("\nExamples:\n");
    for example in command.examples {
        let _ = writeln!(text, "  {}", example.replace("{command_name}", &format!("ringtide {name}")));
    }
    for note in command.notes {
        text.push('\n');
        wrap(&mut text, note, 0);
        text.push('\n');
    }
    text
}

/// The options that every command has.
fn own_options(text: &mut String) {
    entry(text, "-h, --help", "print this text");
    entry(text, "-V, --version", "print the version");
}

fn option(text: &mut String, flag: &FlagInfo<'_>) {
    let short = flag.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
    let value = match flag.kind {
        FlagInfoKind::Switch => String::new(),
        // The value may be left out, and then stands behind a sign.
        FlagInfoKind::Option { .. } if flag.long == "--json" => String::new(),
        FlagInfoKind::Option { arg_name } => format!(" {}", arg_name.to_uppercase()),
    };
    entry(text, &format!("{short}{}{value}", flag.long), flag.description);
}

/// A name and what it means, on lines of their own where the name is long.
fn entry(text: &mut String, name: &str, meaning: &str) {
    let _ = write!(text, "  {name}");
    if name.len() + 4 > INDENT {
        let _ = write!(text, "\n{:INDENT$}", "");
    } else {
        let _ = write!(text, "{:1$}", "", INDENT - 2 - name.len());
    }
    wrap(text, meaning, INDENT);
    text.push('\n');
}

/// Writes words from the column `indent` on, where the text stands already.
fn wrap(text: &mut String, words: &str, indent: usize) {
    let mut column = indent;
    for word in words.split_whitespace() {
        let len = word.chars().count();
        if column > indent && column + 1 + len > WIDTH {
            let _ = write!(text, "\n{:indent$}", "");
            column = indent;
        } else if column > indent {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += len;
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::commands;
    use super::*;

    #[test]
    fn lines_fit_and_all_options_are_there() {
        let all = of(None, commands());
        assert!(all.lines().all(|line| line.chars().count() <= WIDTH), "{all}");
        for command in commands() {
            assert!(all.contains(&format!("\n  {} ", command.name)), "{all}");
            let text = of(Some(command.name), commands());
            assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
            for flag in command.command.flags {
                assert!(text.contains(&format!(" {}", flag.long)), "{text}");
            }
            assert!(!text.contains("Others:"), "an option without a heading:\n{text}");
            assert!(text.contains("Examples:\n  ringtide "), "{text}");
        }
    }
}

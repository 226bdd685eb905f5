//! A table of peers.

use super::units::{bytes, count};
use crate::download::{PeerLine, PeerTable};
use crate::meta::geometry::BLOCK_LEN;
use crate::meta::text::escape;

/// The columns and whether numbers stand in them, at the right. The last one is as wide as it needs to be.
const COLUMNS: [(&str, bool); 8] = [
    ("peer", false),
    ("client", false),
    ("state", false),
    ("rate", true),
    ("useful", true),
    ("wasted", true),
    ("in place", true),
    ("why closed", false),
];
/// Longer names are cut.
const CLIENT_LEN_MAX: usize = 24;

/// The lines of the table.
pub(super) fn lines(table: &PeerTable) -> Vec<String> {
    let rows: Vec<_> = table.peers.iter().map(row).collect();
    let width_of = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([COLUMNS[column].0.len()]).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..COLUMNS.len()).map(width_of).collect();
    let heads = COLUMNS.map(|(head, _)| head.to_owned());
    let mut lines: Vec<_> = [&heads].into_iter().chain(&rows).map(|row| aligned(row, &widths)).collect();
    if table.others > 0 {
        lines.push(format!("and {} more", count(table.others, "peer", "peers")));
    }
    lines
}

fn row(peer: &PeerLine) -> [String; COLUMNS.len()] {
    let PeerLine { addr, client, state, rate, useful, wasted, in_place, reason } = peer;
    let client = client.as_deref().unwrap_or("-");
    let in_place = (in_place * u64::from(BLOCK_LEN) * 100).checked_div(*useful);
    [
        addr.to_string(),
        escape(client).to_string().chars().take(CLIENT_LEN_MAX).collect(),
        state.map_or_else(|| "closed".to_owned(), |state| state.to_string()),
        format!("{}/s", bytes(*rate as f64)),
        bytes(*useful as f64),
        bytes(*wasted as f64),
        in_place.map_or_else(|| "-".to_owned(), |percent| format!("{}%", percent.min(100))),
        reason.clone().unwrap_or_default(),
    ]
}

fn aligned(row: &[String; COLUMNS.len()], widths: &[usize]) -> String {
    let mut line = String::new();
    for ((cell, (_, is_number)), width) in row.iter().zip(COLUMNS).zip(widths) {
        line += &if is_number { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::shared::PeerState;

    #[test]
    fn columns_stand_below_each_other() {
        let peer = PeerLine {
            addr: "192.0.2.7:6881".parse().unwrap(),
            client: Some("Transmission 4.0.6".to_owned()),
            state: Some(PeerState::Sending),
            rate: 1 << 20,
            useful: 3 << 20,
            wasted: 0,
            in_place: 96,
            reason: None,
        };
        let dead = PeerLine {
            addr: "[2001:db8::1]:1".parse().unwrap(),
            client: None,
            state: None,
            rate: 0,
            useful: 0,
            in_place: 0,
            reason: Some("cannot connect".to_owned()),
            wasted: 0,
        };
        let table = PeerTable { peers: vec![peer, dead], others: 1 };
        let expected = "\
peer             client              state         rate   useful  wasted  in place  why closed
192.0.2.7:6881   Transmission 4.0.6  sending  1.0 MiB/s  3.0 MiB     0 B       50%
[2001:db8::1]:1  -                   closed       0 B/s      0 B     0 B         -  cannot connect
and 1 peer more";
        assert_eq!(lines(&table).join("\n"), expected);
    }

    #[test]
    fn names_cannot_break_the_table() {
        let peer = PeerLine {
            addr: "192.0.2.7:1".parse().unwrap(),
            client: Some(format!("\x1b[2J\n\u{202e}{}", "x".repeat(1000))),
            state: None,
            rate: 0,
            useful: 0,
            wasted: 0,
            in_place: 0,
            reason: None,
        };
        for line in lines(&PeerTable { peers: vec![peer], others: 0 }) {
            assert!(line.len() < 120 && line.chars().all(|char| (' '..='~').contains(&char)), "{line:?}");
        }
    }
}

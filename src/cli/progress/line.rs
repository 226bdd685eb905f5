//! One line that tells how it goes, in as much room as there is.

/// The longest bar, and the shortest ones that are worth their place: beside everything else, and when that is left
/// out.
const BAR_MAX: usize = 40;
const BAR_FAIR: usize = 10;
const BAR_MIN: usize = 5;
/// What a bar takes beside its inside: brackets and a space.
const BAR_FRAME: usize = 3;

/// What is told, all of it in ASCII, so that each byte takes one cell.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    /// How much is done; `None` where that is not known.
    pub(super) percent: Option<u64>,
    /// Bytes of how many.
    pub(super) share: Option<String>,
    /// What goes on, and the same in fewer words.
    pub(super) status: String,
    pub(super) brief: String,
    /// How long it will take.
    pub(super) eta: Option<String>,
    /// Who takes part.
    pub(super) peers: Option<String>,
}

/// What is left of a line.
#[derive(Clone, Copy)]
struct Shape {
    peers: bool,
    eta: bool,
    share: bool,
    brief: bool,
    bar_min: Option<usize>,
}

/// From all to the least.
const SHAPES: [Shape; 6] = {
    let all = Shape { peers: true, eta: true, share: true, brief: false, bar_min: Some(BAR_FAIR) };
    let no_peers = Shape { peers: false, ..all };
    let no_eta = Shape { eta: false, bar_min: Some(BAR_MIN), ..no_peers };
    let no_bar = Shape { bar_min: None, ..no_eta };
    let no_share = Shape { share: false, ..no_bar };
    let brief = Shape { brief: true, ..no_share };
    [all, no_peers, no_eta, no_bar, no_share, brief]
};

impl Line {
    /// The line for a terminal of that width: narrower than that, as a line that ends in the last column wraps.
    pub(super) fn fit(&self, width: usize) -> String {
        let room = width.saturating_sub(1);
        let mut text =
            SHAPES.iter().find_map(|&shape| self.shaped(shape, room)).unwrap_or_else(|| self.brief.clone());
        text.truncate(room);
        text
    }

    /// The line where there is room for all of it, and for no bar.
    pub(super) fn plain(&self) -> String {
        let percent = self.percent.map(|percent| format!("{percent}%"));
        let parts =
            [percent, self.share.clone(), Some(self.status.clone()), self.eta.clone(), self.peers.clone()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// The line in that shape, if there is room for it.
    fn shaped(&self, shape: Shape, room: usize) -> Option<String> {
        let status = if shape.brief { &self.brief } else { &self.status };
        let parts = [
            self.share.as_ref().filter(|_| shape.share),
            Some(status),
            self.eta.as_ref().filter(|_| shape.eta),
            self.peers.as_ref().filter(|_| shape.peers),
        ];
        let text = parts.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join("  ");
        let Some(percent) = self.percent else { return (text.len() <= room).then_some(text) };
        let head = format!("{percent:>3}% ");
        let left = room.checked_sub(head.len() + text.len())?;
        let Some(bar_min) = shape.bar_min else { return Some(head + &text) };
        let inside = left.checked_sub(BAR_FRAME).filter(|&inside| inside >= bar_min)?;
        Some(format!("{head}{} {text}", bar(percent, inside.min(BAR_MAX))))
    }
}

/// A bar of which that much is full.
fn bar(percent: u64, inside: usize) -> String {
    let full = inside * percent.min(100) as usize / 100;
    let tip = if full < inside { ">" } else { "" };
    format!("[{:<inside$}]", "=".repeat(full) + tip)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn running() -> Line {
        Line {
            percent: Some(37),
            share: Some("1.2/3.4 GiB".to_owned()),
            status: "12.3 MiB/s".to_owned(),
            brief: "12.3 MiB/s".to_owned(),
            eta: Some("ETA 1:23".to_owned()),
            peers: Some("3 of 4 peers sending".to_owned()),
        }
    }

    #[test]
    fn peers_go_first_then_the_time_then_the_bar() {
        let wide = " 37% [==============>                         ] 1.2/3.4 GiB  12.3 MiB/s  ETA 1:23  3 of 4 peers sending";
        assert_eq!(running().fit(200), wide);
        assert_eq!(
            running().fit(80),
            " 37% [=====>          ] 1.2/3.4 GiB  12.3 MiB/s  ETA 1:23  3 of 4 peers sending"
        );
        assert_eq!(
            running().fit(70),
            " 37% [==========>                 ] 1.2/3.4 GiB  12.3 MiB/s  ETA 1:23"
        );
        assert_eq!(running().fit(40), " 37% [==>     ] 1.2/3.4 GiB  12.3 MiB/s");
        assert_eq!(running().fit(36), " 37% 1.2/3.4 GiB  12.3 MiB/s");
        assert_eq!(running().fit(20), " 37% 12.3 MiB/s");
        assert_eq!(running().fit(10), "12.3 MiB/");
        assert_eq!((running().fit(1), running().fit(0)), (String::new(), String::new()));
        assert_eq!(running().plain(), "37%, 1.2/3.4 GiB, 12.3 MiB/s, ETA 1:23, 3 of 4 peers sending");
    }

    #[test]
    fn a_bar_is_full_when_all_is_there() {
        assert_eq!(
            (bar(0, 5), bar(99, 5), bar(100, 5)),
            ("[>    ]".to_owned(), "[====>]".to_owned(), "[=====]".to_owned())
        );
    }

    proptest! {
        #[test]
        fn no_line_is_as_wide_as_the_terminal(
            percent in proptest::option::of(0..=100u64),
            texts in proptest::collection::vec("[ -~]{0,60}", 5),
            (share, eta, peers) in any::<(bool, bool, bool)>(),
            width in 0..300usize,
        ) {
            let [of, status, brief, time, who] = texts.try_into().unwrap();
            let line = Line {
                percent,
                share: share.then_some(of),
                status,
                brief,
                eta: eta.then_some(time),
                peers: peers.then_some(who),
            };
            prop_assert!(line.fit(width).chars().count() <= width.saturating_sub(1));
        }
    }
}

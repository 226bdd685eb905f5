//! What the user has stays as it is: nothing is changed before it was checked, and only what is wrong is replaced, and only
//! where `--overwrite` says so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(unused_macros, unused_imports, reason = "one of its parts is a macro for other tests")]
mod common;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use common::confine::{as_ordinary_user, is_root};
use common::process::wait_for;
use common::workspace::temp_dir;
use ringtide::disk::record::Record;
use serde_json::Value;
use support::content::Content;
use support::folder::{self, assert_unchanged};
use support::peer::{Peer, Script};
use support::program::{Program, Run, Running, ringtide};
use support::tracker::dead_addr;
use tempfile::TempDir;

const NO_PEERS: i32 = 4;
const BAD_OUTPUT: i32 = 5;

const PIECE_LEN: usize = 32 << 10;

/// How long a run may hang: far more than it takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A folder with `t`, a torrent of this content.
struct Place {
    dir: TempDir,
    content: Content,
    /// The lengths of the files `out/d/f00` and so on; of `out` where there is none.
    lens: Vec<usize>,
}

impl Place {
    fn new(content: Content, lens: &[usize]) -> Self {
        let dir = temp_dir("keeping");
        content.torrent(&dir.path().join("t"), &[]);
        Self { dir, content, lens: lens.to_vec() }
    }

    fn single(len: usize) -> Self {
        Self::new(Content::single("kept", len, PIECE_LEN), &[])
    }

    fn folder(lens: &[usize]) -> Self {
        Self::new(Content::folder("kept", lens, PIECE_LEN), lens)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, file: usize) -> PathBuf {
        self.path(&format!("out/d/f{file:02}"))
    }

    /// What a file is to hold.
    fn right(&self, file: usize) -> &[u8] {
        let start = self.lens[..file].iter().sum();
        &self.content.bytes[start..][..self.lens[file]]
    }

    fn put(&self, file: usize, bytes: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path("out/d")).unwrap();
        fs::write(self.file(file), bytes).unwrap();
    }

    fn download(&self, args: &[&str]) -> Program {
        let args = [&["download", "--json", "-o", "out"], args, &["t"]].concat();
        ringtide(args).env("RINGTIDE_RECORD_MS", "20").within(self.dir.path())
    }

    /// The pieces that are there, as far as the files reach.
    fn right_pieces(&self) -> BTreeSet<usize> {
        let mut bytes = Vec::new();
        if self.lens.is_empty() {
            bytes = fs::read(self.path("out")).unwrap_or_default();
        }
        for (file, &len) in self.lens.iter().enumerate() {
            let mut here = fs::read(self.file(file)).unwrap_or_default();
            here.resize(len, 0);
            bytes.extend(here);
        }
        let pieces = bytes.chunks(PIECE_LEN).enumerate();
        pieces.filter(|(at, piece)| *piece == self.content.piece(*at)).map(|(at, _)| at).collect()
    }

    /// The pieces that the record names as being on the disk.
    fn recorded(&self) -> BTreeSet<usize> {
        let Ok(bytes) = fs::read(self.path("out.ringtide")) else { return BTreeSet::new() };
        let durable = Record::parse(&bytes).unwrap().durable;
        (0..durable.len() * 8).filter(|at| durable[at / 8] & (0x80 >> (at % 8)) != 0).collect()
    }

    #[track_caller]
    fn assert_complete(&self, note: &str) {
        assert_eq!(self.right_pieces().len(), self.content.piece_count(), "{note}");
        for (file, &len) in self.lens.iter().enumerate() {
            assert_eq!(fs::metadata(self.file(file)).unwrap().len(), len as u64, "file {file}; {note}");
        }
    }

    /// Runs what must fail that way and change nothing.
    #[track_caller]
    fn refuses(&self, args: &[&str], code: i32, text: &str) {
        let before = folder::list(self.dir.path());
        self.download(args).run().assert_fails(code, text);
        assert_unchanged(self.dir.path(), &before);
    }

    /// Replaces what is wrong, from an honest peer: no piece that is right is asked for.
    #[track_caller]
    fn overwrite(&self) -> BTreeSet<usize> {
        let right = self.right_pieces();
        let peer = Peer::honest(&self.content);
        let run = self.download(&["--overwrite", "--peer", &peer.addr.to_string()]).run();
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        self.assert_complete(&run.stderr);
        let fetched = peer.assert_pleased().pieces();
        assert!(fetched.is_disjoint(&right), "{fetched:?} were fetched, {right:?} were there");
        fetched
    }

    /// Starts a download that gets so many blocks and no more, and waits for its record to name a piece.
    fn run_to(&self, blocks_max: usize, args: &[&str]) -> Running {
        let peer = Peer::start(&self.content, Script { blocks_max, ..Script::default() });
        let running = self.download(&[args, &["--peer", &peer.addr.to_string()]].concat()).start();
        let is_recorded = || {
            let record = Record::parse(&fs::read(self.path("out.ringtide")).ok()?).unwrap();
            let recorded: u32 = record.durable.iter().map(|byte| byte.count_ones()).sum();
            // Some of what came may be of pieces that are half done.
            (recorded as usize >= blocks_max * 3 / 8).then_some(())
        };
        wait_for(LIMIT, is_recorded).expect("the pieces are recorded");
        running
    }
}

fn number(run: &Run, key: &str) -> u64 {
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    serde_json::from_slice::<Value>(&run.stdout).unwrap()[key].as_u64().unwrap()
}

fn text(len: usize) -> Vec<u8> {
    b"a text of the user's own, ".iter().copied().cycle().take(len).collect()
}

#[test]
fn nothing_is_replaced_before_something_is_there_to_replace_it() {
    let dead = dead_addr().to_string();
    let place = Place::single(200_000);
    fs::write(place.path("out"), &*place.content.bytes).unwrap();
    let before = folder::list(place.dir.path());
    for args in [&["--overwrite"][..], &["--overwrite", "--peer", &dead]] {
        assert_eq!(number(&place.download(args).run(), "bytes_kept"), 200_000);
        assert_unchanged(place.dir.path(), &before);
    }
    let mut half = place.content.bytes.to_vec();
    half[100_000] ^= 1;
    let longer = [&*half, b"and more"].concat();
    for wrong in [text(200_000), text(1_000), text(300_000), half[..150_000].to_vec(), longer, half] {
        fs::write(place.path("out"), &wrong).unwrap();
        let before = folder::list(place.dir.path());
        for io in ["auto", "mmap", "pwrite"] {
            let run = place.download(&["--overwrite", "--io", io, "--peer", &dead]).run();
            assert!(run.code == Some(NO_PEERS) && run.stderr.contains("are verified"), "{}", run.stderr);
            let mut after = folder::list(place.dir.path());
            after.remove(&PathBuf::from("out.ringtide"));
            let kept = after.get_mut(&PathBuf::from("out")).unwrap().as_mut().unwrap();
            // What is ours may have got its length.
            let is_ours = wrong.get(..PIECE_LEN).is_some_and(|head| place.content.bytes.starts_with(head));
            if is_ours && kept.len() > wrong.len() {
                assert!(kept.split_off(wrong.len()).iter().all(|&byte| byte == 0));
            }
            assert!(after == before, "{io}, {} bytes: {:?}", wrong.len(), folder::names(&after));
            let _ = fs::remove_file(place.path("out.ringtide"));
        }
    }
}

/// A piece is only written when it is verified, so that what comes from a liar replaces nothing.
#[test]
fn what_a_liar_sends_replaces_nothing_of_others() {
    let place = Place::single(400_000);
    let mine = text(400_000);
    fs::write(place.path("out"), &mine).unwrap();
    let liar = Peer::start(&place.content, Script { corrupt: true, ..Script::default() });
    let run = place.download(&["--overwrite", "--timeout", "2", "--peer", &liar.addr.to_string()]).run();
    run.assert_fails(NO_PEERS, "are verified");
    assert!(!liar.seen().blocks.is_empty());
    assert!(fs::read(place.path("out")).unwrap() == mine);
    place.overwrite();
}

#[test]
fn each_file_is_judged_by_itself() {
    // Movies of many pieces, with notes that have pieces of their own, share one with a movie, and share one with each other.
    let lens = [300_000, 100_000, 300_000, 5_000, 300_000, 200, 100, 300_000];
    for foreign in [1, 3, 5] {
        for mine in [text(lens[foreign]), text(lens[foreign] / 2)] {
            let place = Place::folder(&lens);
            (0..lens.len()).for_each(|file| place.put(file, place.right(file)));
            place.put(foreign, &mine);
            let peer = Peer::honest(&place.content);
            let args = ["--peer", &*peer.addr.to_string()];
            let named = format!("out/d/f{foreign:02} already holds something else");
            place.refuses(&args, BAD_OUTPUT, &named);
            assert_eq!(peer.seen().connections, 0, "nobody is asked");
            let fetched = place.overwrite();
            assert!(fetched.len() <= lens[foreign] / PIECE_LEN + 2, "{fetched:?}");
        }
    }
    let place = Place::folder(&lens);
    [1, 3].into_iter().for_each(|file| place.put(file, text(lens[file])));
    place.refuses(&[], BAD_OUTPUT, "out/d/f01 already holds something else (and so does one more file)");
}

#[test]
fn of_a_longer_file_only_what_is_too_much_goes() {
    let lens = [100_000, 100_000, 0];
    let dead = dead_addr().to_string();
    for longer in 0..lens.len() {
        let place = Place::folder(&lens);
        (0..lens.len()).for_each(|file| place.put(file, place.right(file)));
        place.put(longer, [place.right(longer), b"++"].concat());
        place.refuses(&["--peer", &dead], BAD_OUTPUT, &format!("out/d/f{longer:02} exists and has"));
        let run = place.download(&["--overwrite", "--peer", &dead]).run();
        assert_eq!(number(&run, "bytes_kept"), 200_000);
        place.assert_complete(&run.stderr);
    }
}

#[test]
fn a_file_that_cannot_be_written_is_verified() {
    let lens = [100_000, 0, 50_000];
    let place = Place::folder(&lens);
    (0..lens.len()).for_each(|file| place.put(file, place.right(file)));
    let chmod = |path: PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    (0..lens.len()).for_each(|file| chmod(place.file(file), 0o444));
    chmod(place.path(""), 0o755);
    chmod(place.path("out/d"), 0o555);
    for args in [&[][..], &["--overwrite"], &["--sync"]] {
        let run = place.download(args).prepared(as_ordinary_user).run();
        assert_eq!(number(&run, "bytes_kept"), 150_000);
    }
    chmod(place.path("out/d"), 0o755);
    chmod(place.file(2), 0o644);
    let mut wrong = place.right(2).to_vec();
    wrong[49_999] ^= 1;
    place.put(2, wrong);
    chmod(place.file(2), 0o444);
    if is_root() {
        let run = place.download(&[]).prepared(as_ordinary_user).run();
        run.assert_fails(BAD_OUTPUT, "no permission to write out/d/f02");
    }
}

#[test]
fn a_right_file_that_cannot_be_written_is_recorded_with_the_others() {
    let lens = [3 * PIECE_LEN, 60 * PIECE_LEN];
    for end in ["run", "kill"] {
        let place = Place::folder(&lens);
        place.put(0, place.right(0));
        for (path, mode) in [("out/d/f00", 0o444), ("", 0o777), ("out", 0o777), ("out/d", 0o777)] {
            fs::set_permissions(place.path(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        let script = Script { block_after: Duration::from_millis(2), ..Script::default() };
        let peer = Peer::start(&place.content, script);
        let args = ["--peer", &peer.addr.to_string()];
        let mut running = place.download(&args).prepared(as_ordinary_user).start();
        if end == "kill" {
            wait_for(LIMIT, || place.recorded().contains(&0).then_some(())).expect("it is recorded");
            running.kill();
            running = place.download(&args).prepared(as_ordinary_user).start();
        }
        let run = running.wait(LIMIT);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        place.assert_complete(end);
    }
}

#[test]
fn a_right_copy_may_have_holes() {
    // The last piece is short, and a hole too.
    let mut bytes = text(10 * PIECE_LEN + 100);
    for zeroes in [2 * PIECE_LEN..5 * PIECE_LEN, 9 * PIECE_LEN..10 * PIECE_LEN + 100] {
        bytes[zeroes].fill(0);
    }
    let place = Place::new(Content::of_bytes("kept", bytes, PIECE_LEN), &[]);
    let file = fs::File::create(place.path("out")).unwrap();
    file.set_len(place.content.bytes.len() as u64).unwrap();
    for data in [0..2 * PIECE_LEN, 5 * PIECE_LEN..9 * PIECE_LEN] {
        file.write_all_at(&place.content.bytes[data.clone()], data.start as u64).unwrap();
    }
    let blocks = file.metadata().unwrap().blocks();
    assert_eq!(number(&place.download(&[]).run(), "bytes_kept"), place.content.bytes.len() as u64);
    assert_eq!(file.metadata().unwrap().blocks(), blocks, "the holes stay");
}

/// Writes to a file as another program, from its first byte on.
fn write_over(path: PathBuf, bytes: &[u8]) {
    fs::File::options().write(true).open(path).unwrap().write_all_at(bytes, 0).unwrap();
}

/// After an orderly end nobody but others can have written to the files.
#[test]
fn what_others_wrote_over_a_half_done_file_after_the_end_stays() {
    let place = Place::folder(&[60 * PIECE_LEN, 4 * PIECE_LEN]);
    let running = place.run_to(8, &["--io", "mmap"]);
    running.signal("INT");
    running.wait(LIMIT).assert_fails(130, "verified");
    let untouched = (0..2).find(|&file| fs::read(place.file(file)).unwrap().iter().all(|&byte| byte == 0));
    let Some(file) = untouched else { return };
    // Each of its pieces has a block of zeroes still.
    write_over(place.file(file), &text(PIECE_LEN / 4));
    let before = fs::read(place.file(file)).unwrap();
    let run = place.download(&["--peer", &Peer::honest(&place.content).addr.to_string()]).run();
    assert_eq!(run.code, Some(BAD_OUTPUT), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("out/d/f{file:02} already holds something else")), "{}", run.stderr);
    assert!(fs::read(place.file(file)).unwrap() == before);
}

#[test]
fn a_run_that_gets_nothing_leaves_the_record_of_the_last() {
    for io in ["mmap", "pwrite"] {
        let place = Place::folder(&[2 * PIECE_LEN, 40_000]);
        let peer = Peer::start(&place.content, Script { blocks_max: 1, ..Script::default() });
        let mut running = place.download(&["--io", "mmap", "--peer", &peer.addr.to_string()]).start();
        let has_data = || {
            let mut files = (0..2).filter_map(|file| fs::read(place.file(file)).ok());
            files.any(|bytes| bytes.iter().any(|&byte| byte != 0))
        };
        wait_for(LIMIT, || has_data().then_some(())).expect("a block comes");
        running.kill();
        let dead = dead_addr().to_string();
        for _ in 0..2 {
            let run = place.download(&["--io", io, "--peer", &dead]).run();
            run.assert_fails(NO_PEERS, "0 B of");
        }
        let honest = Peer::honest(&place.content);
        let run = place.download(&["--io", io, "--peer", &honest.addr.to_string()]).run();
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        place.assert_complete(&run.stderr);
    }
}

/// Files of others that nothing was put into get their old length back, and the record knows it.
#[test]
fn a_record_is_not_made_stale_by_what_is_put_back() {
    let lens = [60 * PIECE_LEN, 5 * PIECE_LEN];
    let place = Place::folder(&lens);
    let mine = text(2 * PIECE_LEN);
    place.put(1, &mine);
    let peer = Peer::start(&place.content, Script { blocks_max: 41, ..Script::default() });
    let running = place.download(&["--overwrite", "--peer", &peer.addr.to_string()]).start();
    wait_for(LIMIT, || (place.recorded().len() >= 15).then_some(())).expect("the pieces are recorded");
    running.signal("INT");
    running.wait(LIMIT).assert_fails(130, "verified");
    if place.right_pieces().iter().all(|&piece| piece < 60) {
        assert!(fs::read(place.file(1)).unwrap() == mine, "it has its old length");
    }
    let honest = Peer::honest(&place.content);
    let run = place.download(&["--overwrite", "--peer", &honest.addr.to_string()]).run();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(!run.stderr.contains("out.ringtide"), "{}", run.stderr);
    place.assert_complete(&run.stderr);
}

/// Halves of pieces are no reason to replace anything, nor is the want of memory for them.
#[test]
fn half_done_pieces_replace_nothing_of_others() {
    const LONG: usize = 8 << 20;
    for io in ["mmap", "pwrite"] {
        let content = Content::single("kept", 8 * LONG, LONG);
        let place = Place::new(content, &[]);
        let mine = text(8 * LONG + 100);
        fs::write(place.path("out"), &mine).unwrap();
        let mut args = vec!["--io".to_owned(), io.to_owned(), "--overwrite".to_owned()];
        // Each sends most of a piece, and nothing more.
        let script = || Script { blocks_max: 400, ..Script::default() };
        let peers: Vec<_> = (0..8).map(|_| Peer::start(&place.content, script())).collect();
        args.extend(peers.iter().flat_map(|peer| ["--peer".to_owned(), peer.addr.to_string()]));
        args.extend(["--timeout", "2"].map(str::to_owned));
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let run = place.download(&args).run();
        let sent: usize = peers.iter().map(|peer| peer.seen().blocks.len()).sum();
        assert!(sent > 2_500, "{sent} blocks were sent");
        let after = fs::read(place.path("out")).unwrap();
        let right: Vec<_> =
            (0..8).filter(|at| after[at * LONG..][..LONG] == *place.content.piece(*at)).collect();
        if right.is_empty() {
            assert!(after == mine, "{io}: {}", run.stderr);
        }
        for at in (0..8).filter(|at| !right.contains(at)) {
            assert!(
                after[at * LONG..][..LONG] == mine[at * LONG..][..LONG],
                "{io}, piece {at}: {}",
                run.stderr
            );
        }
    }
}

#[test]
fn a_record_that_others_may_have_written_is_not_believed() {
    type Change = fn(&Place);
    let allow = |place: &Place| {
        fs::set_permissions(place.path("out.ringtide"), fs::Permissions::from_mode(0o622)).unwrap();
    };
    let give = |place: &Place| {
        std::os::unix::fs::chown(place.path("out.ringtide"), Some(12_345), None).unwrap();
    };
    let link = |place: &Place| fs::hard_link(place.path("out.ringtide"), place.path("other")).unwrap();
    let cases: [(&str, Change); 4] =
        [("as it is", |_| ()), ("writable", allow), ("linked", link), ("of another user", give)];
    for (name, change) in cases.into_iter().take(if is_root() { 4 } else { 3 }) {
        let place = Place::single(60 * PIECE_LEN);
        let running = place.run_to(80, &[]);
        running.signal("INT");
        running.wait(LIMIT).assert_fails(130, "verified");
        let right = place.right_pieces();
        let record = Record::parse(&fs::read(place.path("out.ringtide")).unwrap()).unwrap();
        let durable: u32 = record.durable.iter().map(|byte| byte.count_ones()).sum();
        let unsynced = (60 - u64::from(durable)) * PIECE_LEN as u64;
        change(&place);
        let peer = Peer::honest(&place.content);
        let run = place.download(&["--peer", &peer.addr.to_string()]).run();
        let (kept, checked) = (number(&run, "bytes_kept"), number(&run, "bytes_checked"));
        let is_believed = name == "as it is";
        let is_as_believed = if is_believed { checked <= unsynced } else { checked >= kept };
        assert!(is_as_believed, "{name}: {checked} of {kept} were hashed; {}", run.stderr);
        assert_eq!(
            run.stderr.contains("out.ringtide may have been written by others"),
            !is_believed,
            "{name}"
        );
        assert!(peer.seen().pieces().is_disjoint(&right), "{name}: a right piece was fetched again");
    }
}

#[test]
fn what_only_has_the_name_of_a_record_or_a_draft_stays() {
    for mine in [text(300), vec![0; 100_000]] {
        let place = Place::single(60 * PIECE_LEN);
        let (record, draft) = (place.path("out.ringtide"), place.path("out.ringtide.new"));
        let stay = || assert!(fs::read(&record).unwrap() == mine && fs::read(&draft).unwrap() == mine);
        fs::write(&record, &mine).unwrap();
        fs::write(&draft, &mine).unwrap();
        let peer = Peer::start(&place.content, Script { blocks_max: 20, ..Script::default() });
        let running = place.download(&["--peer", &peer.addr.to_string()]).start();
        wait_for(LIMIT, || (peer.seen().blocks.len() == 20).then_some(())).unwrap();
        running.signal("INT");
        assert_eq!(running.wait(LIMIT).code, Some(130));
        stay();
        let honest = Peer::honest(&place.content);
        let run = place.download(&["--peer", &honest.addr.to_string()]).run();
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        place.assert_complete(&run.stderr);
        stay();
    }
}

#[test]
fn what_a_download_writes_no_other_writes() {
    let place = Place::folder(&[400_000, 100_000]);
    let running = place.run_to(8, &[]);
    let other = Content::single("other", 400_000, PIECE_LEN);
    other.torrent(&place.path("other.torrent"), &[]);
    fs::hard_link(place.file(0), place.path("hard")).unwrap();
    std::os::unix::fs::symlink(place.file(1), place.path("soft")).unwrap();
    let peer = Peer::honest(&other);
    for output in ["out/d/f00", "out/d/f01", "hard", "soft"] {
        for command in [&["download"][..], &["download_piece"]] {
            let args = ["--overwrite", "--peer", &peer.addr.to_string(), "-o", output, "other.torrent"];
            let piece: &[&str] = if command[0] == "download" { &[] } else { &["3"] };
            let run = ringtide([command, &args, piece].concat()).within(place.dir.path()).run();
            run.assert_fails(BAD_OUTPUT, &format!("another process is writing {output}"));
        }
    }
    assert_eq!(peer.seen().connections, 0);
    running.signal("INT");
    running.wait(LIMIT).assert_fails(130, "verified");
}

#[test]
fn other_data_in_the_file_of_a_killed_download_stays() {
    for is_interrupted in [false, true] {
        let place = Place::single(60 * PIECE_LEN);
        let mut running = place.run_to(80, &[]);
        if is_interrupted {
            running.signal("INT");
            running.wait(LIMIT).assert_fails(130, "verified");
        } else {
            running.kill();
        }
        let file = fs::File::options().write(true).open(place.path("out")).unwrap();
        let inode = file.metadata().unwrap().ino();
        file.write_all_at(&text(60 * PIECE_LEN), 0).unwrap();
        let before = fs::read(place.path("out")).unwrap();
        let peer = Peer::honest(&place.content);
        let run = place.download(&["--peer", &peer.addr.to_string()]).run();
        assert_eq!(run.code, Some(BAD_OUTPUT), "{}", run.stderr);
        assert!(run.stderr.contains("out already holds something else"), "{}", run.stderr);
        assert!(fs::read(place.path("out")).unwrap() == before);
        assert_eq!(fs::metadata(place.path("out")).unwrap().ino(), inode);
        assert_eq!(peer.seen().connections, 0);
    }
}

/// Changes a byte of a piece that a record names, as another program.
fn spoil(place: &Place) -> usize {
    let record = Record::parse(&fs::read(place.path("out.ringtide")).unwrap()).unwrap();
    let byte = record.durable.iter().position(|&byte| byte != 0).unwrap();
    let piece = byte * 8 + record.durable[byte].leading_zeros() as usize;
    let file = fs::File::options().write(true).open(place.path("out")).unwrap();
    file.write_all_at(&[!place.content.piece(piece)[7]], (piece * PIECE_LEN + 7) as u64).unwrap();
    piece
}

#[test]
fn what_others_write_during_the_run_is_noticed() {
    for (io, signal) in [("mmap", "INT"), ("pwrite", "INT"), ("mmap", "KILL"), ("pwrite", "KILL")] {
        let place = Place::single(60 * PIECE_LEN);
        let mut running = place.run_to(80, &["--io", io]);
        let spoiled = spoil(&place);
        if signal == "KILL" {
            running.kill();
        } else {
            running.signal(signal);
            running.wait(LIMIT).assert_fails(130, "verified");
        }
        let right = place.right_pieces();
        let peer = Peer::honest(&place.content);
        let run = place.download(&["--io", io, "--peer", &peer.addr.to_string()]).run();
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        place.assert_complete(io);
        let fetched = peer.seen().pieces();
        assert!(fetched.contains(&spoiled) && fetched.is_disjoint(&right), "{io} {signal}: {fetched:?}");
    }
    // The run that goes on to its end finds it out itself.
    let place = Place::single(60 * PIECE_LEN);
    let block_after = Duration::from_millis(5);
    let slow = Peer::start(&place.content, Script { block_after, ..Script::default() });
    let running = place.download(&["--io", "mmap", "--peer", &slow.addr.to_string()]).start();
    let is_recorded = || {
        let record = Record::parse(&fs::read(place.path("out.ringtide")).ok()?).unwrap();
        record.durable.iter().any(|&byte| byte != 0).then_some(())
    };
    wait_for(LIMIT, is_recorded).expect("a piece is recorded");
    let spoiled = spoil(&place);
    running.wait(LIMIT).assert_fails(BAD_OUTPUT, "out was written to by another program");
    assert_eq!(place.overwrite(), BTreeSet::from([spoiled]));
}

/// The first pieces are half done: nothing of them is right, and nothing else tells whose they are.
#[test]
fn a_killed_download_without_a_whole_piece_goes_on() {
    let place = Place::folder(&[200_000, 300_000]);
    let peer = Peer::start(&place.content, Script { blocks_max: 1, ..Script::default() });
    let mut running = place.download(&["--peer", &peer.addr.to_string()]).start();
    let has_data = || {
        let mut files = (0..2).filter_map(|file| fs::read(place.file(file)).ok());
        files.any(|bytes| bytes.iter().any(|&byte| byte != 0))
    };
    wait_for(LIMIT, || has_data().then_some(())).expect("a block comes");
    running.kill();
    let honest = Peer::honest(&place.content);
    let run = place.download(&["--peer", &honest.addr.to_string()]).run();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    place.assert_complete(&run.stderr);
}

#[test]
fn the_torrent_that_is_read_is_never_the_output() {
    let content = Content::single("kept", 100_000, PIECE_LEN);
    let place = Place::new(content, &[]);
    fs::hard_link(place.path("t"), place.path("hard")).unwrap();
    std::os::unix::fs::symlink("t", place.path("soft")).unwrap();
    let before = folder::list(place.dir.path());
    for torrent in ["t", "./t", "hard", "soft"] {
        for output in ["t", "./t", "hard", "soft"] {
            for more in [&[][..], &["--overwrite"]] {
                let run = ringtide([&["download", "-o", output, torrent], more].concat());
                let run = run.within(place.dir.path()).run();
                run.assert_fails(BAD_OUTPUT, "is the torrent file itself");
                assert_unchanged(place.dir.path(), &before);
            }
        }
    }
    // A torrent that lies where it has a file.
    let place = Place::folder(&[100_000, 1_000]);
    place.put(1, fs::read(place.path("t")).unwrap());
    let before = folder::list(place.dir.path());
    let run = ringtide(["download", "-o", "out", "--overwrite", "out/d/f01"]).within(place.dir.path()).run();
    run.assert_fails(BAD_OUTPUT, "out/d/f01 is the torrent file itself");
    assert_unchanged(place.dir.path(), &before);
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % end
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// Puts something into the place of a file. Whether it must be refused.
fn place_randomly(place: &Place, file: usize, random: &mut Random) -> bool {
    let right = place.right(file).to_vec();
    let kinds = random.pick(&[5, 5, 8]);
    let kind = random.below(kinds);
    match kind {
        0 | 1 => place.put(file, &right),
        2 => {}
        3 => place.put(file, vec![0; random.below(right.len() + 1)]),
        4 => place.put(file, &right[..random.below(right.len() + 1)]),
        5 => place.put(file, [&right[..], &text(1 + random.below(100))].concat()),
        6 => place.put(file, text(random.below(right.len() + 1))),
        _ => place.put(file, right.iter().map(|byte| !byte).collect::<Vec<_>>()),
    }
    kind == 5 || (kind == 6 || kind == 7) && fs::metadata(place.file(file)).unwrap().len() > 0
}

/// One folder, found in a random state and downloaded by runs with random flags that are killed at random.
fn keep_randomly(seed: u64) {
    let note = format!("seed {seed}");
    let mut random = Random(seed | 1);
    let lens: Vec<usize> = (0..2 + random.below(6))
        .map(|_| random.pick(&[0, 1, 300, 5_000, 40_000, 100_000, 250_000]))
        .collect();
    if lens.iter().sum::<usize>() == 0 {
        return;
    }
    let place = Place::folder(&lens);
    let mut is_refused = false;
    for file in 0..lens.len() {
        is_refused |= place_randomly(&place, file, &mut random);
    }
    let honest =
        Peer::start(&place.content, Script { block_after: Duration::from_micros(200), ..Script::default() });
    let liar = Peer::start(&place.content, Script { corrupt: true, ..Script::default() });
    for run in 0..4 {
        let is_last = run == 3;
        let overwrites = is_last || random.below(4) == 0;
        let io = random.pick(&["auto", "mmap", "pwrite", "uncached"]);
        let addr = if is_last || random.below(4) > 0 { honest.addr } else { liar.addr }.to_string();
        let mut args = vec!["--io", io, "--timeout", "1", "--peer", &addr];
        if overwrites {
            args.push("--overwrite");
        }
        let (before, right, served) =
            (folder::list(dir_of(&place)), place.right_pieces(), honest.seen().blocks.len());
        let running = place.download(&args).start();
        let ended = if is_last || random.below(2) == 0 {
            Some(running.wait(LIMIT))
        } else {
            kill(running, &mut random)
        };
        let again =
            honest.seen().blocks[served..].iter().map(|block| block.0).find(|piece| right.contains(piece));
        assert_eq!(again, None, "{note}, run {run}: a right piece was fetched again");
        let lost = right.difference(&place.right_pieces()).next().copied();
        assert_eq!(lost, None, "{note}, run {run} {args:?}: a right piece was lost");
        if is_refused && !overwrites {
            assert_unchanged(dir_of(&place), &before);
            assert!(ended.is_none_or(|run| run.code == Some(BAD_OUTPUT)), "{note}");
        } else if is_last {
            let run = ended.unwrap();
            assert_eq!(run.code, Some(0), "{note}: {}", run.stderr);
            place.assert_complete(&note);
        }
        // What was replaced in part is nobody's any more.
        is_refused &= !overwrites;
    }
}

fn dir_of(place: &Place) -> &std::path::Path {
    place.dir.path()
}

fn kill(mut running: Running, random: &mut Random) -> Option<Run> {
    thread::sleep(Duration::from_micros(random.below(80_000) as u64));
    running.kill();
    None
}

/// Another seed each time, and that of `RINGTIDE_KEEPING_SEED` where it is set.
#[test]
fn whatever_lies_there_nothing_of_others_is_lost_and_nothing_right_is_fetched_again() {
    let clock = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let given = std::env::var("RINGTIDE_KEEPING_SEED").ok().map(|seed| seed.parse().unwrap());
    let (first, deadline) = (given.unwrap_or_else(clock), Instant::now() + Duration::from_secs(6));
    let mut seed = first;
    while Instant::now() < deadline {
        println!("seed {seed}");
        keep_randomly(seed);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if given.is_some() {
            break;
        }
    }
}

//! Bencode: the parser against a naive recursive one, and back through the writer and the JSON view.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use ringtide::meta::bencode::{Form, Kind, Limits, Value, Writer, parse, parse_prefix, to_json};

/// A small depth, so that the limit is met often; the naive parser recurses.
const LIMITS: Limits = Limits { depth_max: 12, tokens_max: 1 << 20, form: Form::Strict };
/// The same for what other programs write.
const LENIENT: Limits = Limits { form: Form::Lenient, ..LIMITS };

/// The longest integer that a JSON reader takes as a number with a fraction.
const JSON_DIGITS_MAX: usize = 300;

#[derive(PartialEq, Debug)]
enum Node {
    Bytes(Vec<u8>),
    /// Its digits.
    Integer(String),
    List(Vec<Self>),
    Dict(BTreeMap<Vec<u8>, Self>),
}

fuzz_target!(|bytes: &[u8]| {
    for limits in [Limits::METAINFO, Limits::TRACKER, Limits::PEER_MESSAGE, Limits::ANY] {
        if let Err(error) = parse(bytes, limits) {
            assert!(error.offset <= bytes.len() && !error.to_string().is_empty());
        }
    }
    check_lenient(bytes);
    let parsed = parse_prefix(bytes, LIMITS);
    let naive = naive(bytes, 0);
    let (Ok((document, rest)), Some((node, naive_rest))) = (&parsed, &naive) else {
        assert!(parsed.is_err() && naive.is_none(), "{parsed:?}\n{naive:?}");
        return;
    };
    assert_eq!((*rest, document.root().raw()), (*naive_rest, &bytes[..bytes.len() - rest.len()]));
    assert_eq!(read(document.root()), *node);
    assert_eq!(parse(bytes, LIMITS).is_ok(), rest.is_empty());

    let written = write(node);
    let again = parse(&written, LIMITS).expect("what was written is bencode");
    assert_eq!(read(again.root()), *node);
    assert_eq!(write(&read(again.root())), written);

    let mut json = String::new();
    to_json(document.root(), &mut json);
    if !has_long_integer(node) {
        let value: Result<serde_json::Value, _> = serde_json::from_str(&json);
        assert!(value.is_ok(), "{json}");
    }
});

/// What is bencode is the same read leniently, and whatever else is taken has JSON that can be read.
fn check_lenient(bytes: &[u8]) {
    let lenient = parse_prefix(bytes, LENIENT);
    if let Ok((strict, rest)) = parse_prefix(bytes, LIMITS) {
        let (document, left) = lenient.as_ref().expect("bencode is taken");
        assert_eq!((read(document.root()), *left), (read(strict.root()), rest));
    }
    if let Ok((document, rest)) = lenient {
        assert_eq!(document.root().raw(), &bytes[..bytes.len() - rest.len()]);
        let mut json = String::new();
        to_json(document.root(), &mut json);
        if bytes.len() < JSON_DIGITS_MAX {
            let value: Result<serde_json::Value, _> = serde_json::from_str(&json);
            assert!(value.is_ok(), "{json}");
        }
    }
}

/// The slow obvious parser.
fn naive(bytes: &[u8], depth: usize) -> Option<(Node, &[u8])> {
    let (&first, mut rest) = bytes.split_first()?;
    match first {
        b'i' => {
            let end = rest.iter().position(|&byte| byte == b'e')?;
            let digits = std::str::from_utf8(&rest[..end]).ok()?;
            let unsigned = digits.strip_prefix('-').unwrap_or(digits);
            (is_canonical(unsigned) && digits != "-0")
                .then(|| (Node::Integer(digits.to_owned()), &rest[end + 1..]))
        }
        b'l' | b'd' if depth == LIMITS.depth_max => None,
        b'l' => {
            let mut nodes = Vec::new();
            while *rest.first()? != b'e' {
                let (node, behind) = naive(rest, depth + 1)?;
                nodes.push(node);
                rest = behind;
            }
            Some((Node::List(nodes), &rest[1..]))
        }
        b'd' => {
            let mut entries = BTreeMap::new();
            while *rest.first()? != b'e' {
                let (Node::Bytes(key), behind) = naive(rest, depth + 1)? else { return None };
                let (node, behind) = naive(behind, depth + 1)?;
                if entries.insert(key, node).is_some() {
                    return None;
                }
                rest = behind;
            }
            Some((Node::Dict(entries), &rest[1..]))
        }
        _ => {
            let colon = bytes.iter().position(|&byte| byte == b':')?;
            let digits = std::str::from_utf8(&bytes[..colon]).ok()?;
            let len: usize = is_canonical(digits).then(|| digits.parse().ok())??;
            let content = &bytes[colon + 1..];
            (len <= content.len()).then(|| (Node::Bytes(content[..len].to_vec()), &content[len..]))
        }
    }
}

fn is_canonical(digits: &str) -> bool {
    !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'))
}

fn read(value: Value<'_>) -> Node {
    match value.kind() {
        Kind::Bytes => Node::Bytes(value.as_bytes().expect("a string").to_vec()),
        Kind::Integer => Node::Integer(value.as_digits().expect("an integer").to_owned()),
        Kind::List => Node::List(value.as_list().expect("a list").map(read).collect()),
        Kind::Dict => {
            let entries =
                value.as_dict().expect("a dictionary").map(|(key, inner)| (key.to_vec(), read(inner)));
            Node::Dict(entries.collect())
        }
    }
}

fn write(node: &Node) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_to(node, &mut Writer::new(&mut bytes));
    bytes
}

fn write_to(node: &Node, writer: &mut Writer<'_>) {
    match node {
        Node::Bytes(bytes) => writer.bytes(bytes),
        Node::Integer(digits) => match digits.parse::<i128>() {
            Ok(number) => writer.integer(number),
            Err(_) => writer.raw(format!("i{digits}e").as_bytes()),
        },
        Node::List(nodes) => writer.list(|list| nodes.iter().for_each(|node| write_to(node, list))),
        Node::Dict(entries) => {
            writer.dict(|dict| entries.iter().for_each(|(key, node)| write_to(node, &mut dict.key(key))));
        }
    }
}

fn has_long_integer(node: &Node) -> bool {
    match node {
        Node::Bytes(_) => false,
        Node::Integer(digits) => digits.len() > JSON_DIGITS_MAX,
        Node::List(nodes) => nodes.iter().any(has_long_integer),
        Node::Dict(entries) => entries.values().any(has_long_integer),
    }
}

//! Why an input is not bencode, and where.

use std::fmt;

/// Where parsing stopped and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseError {
    /// The byte at fault, `0 <= offset <= input.len()`.
    pub offset: usize,
    /// What is wrong there.
    pub reason: Reason,
}

/// What is wrong with the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The input ends inside a value, or where one should start.
    UnexpectedEnd {
        /// What should have followed.
        expected: &'static str,
    },
    /// A byte that cannot stand there.
    UnexpectedByte {
        /// The byte.
        got: u8,
        /// What should have stood there.
        expected: &'static str,
    },
    /// A number with needless zeros in front.
    LeadingZero,
    /// The integer `-0`.
    NegativeZero,
    /// A string whose length has a minus sign.
    NegativeLength,
    /// A string that is said to be longer than what is left of the input.
    StringPastEnd {
        /// The bytes that are left after its colon.
        left: usize,
    },
    /// A dictionary key that is not a string.
    KeyNotString,
    /// A key that its dictionary has twice.
    DuplicateKey,
    /// A key without a value.
    MissingValue,
    /// Lists and dictionaries inside each other beyond the limit.
    TooDeep {
        /// The limit.
        max: usize,
    },
    /// More values than the limit.
    TooManyTokens {
        /// The limit.
        max: usize,
    },
    /// Bytes after the end of the value.
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// An input whose offsets do not fit 32 bits.
    InputTooLong,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UnexpectedEnd { expected } => write!(f, "expected {expected}, got the end of the input"),
            Self::UnexpectedByte { got, expected } => {
                write!(f, "expected {expected}, got '{}'", got.escape_ascii())
            }
            Self::LeadingZero => f.write_str("a number with a leading zero"),
            Self::NegativeZero => f.write_str("the integer is -0"),
            Self::NegativeLength => f.write_str("a string of negative length"),
            Self::StringPastEnd { left } => {
                write!(f, "a string longer than the {left} bytes that are left")
            }
            Self::KeyNotString => f.write_str("a dictionary key that is not a string"),
            Self::DuplicateKey => f.write_str("a key that its dictionary already has"),
            Self::MissingValue => f.write_str("a key without a value"),
            Self::TooDeep { max } => write!(f, "nested deeper than {max} levels"),
            Self::TooManyTokens { max } => write!(f, "more than {max} values"),
            Self::TrailingBytes { count } => write!(f, "{count} bytes after the end of the value"),
            Self::InputTooLong => f.write_str("an input of 4 GiB or more"),
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.offset, self.reason)
    }
}

impl std::error::Error for ParseError {}

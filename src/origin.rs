//! What is known of a record beside its bytes: the file it stood in, its number there, what has become of it since the
//! last extract. It travels as parameters of the content type, so that a dead letter and its replay have it as well.

use crate::{
    config::raw::pickup::Change,
    template::{percent_decode, percent_encode},
    tree::{Name, Record, Tree},
};

/// Where a record came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file's name.
    pub file: String,
    /// The first digits of the digest of its bytes: the file under another name has the same.
    pub digest: String,
    /// The record's number in it, from 1; 0 for one that is gone.
    pub row: u64,
    /// What has become of it, if extracts are compared.
    pub change: Option<Change>,
}

/// Bytes of a file's name, percent-encoded, beside a record: an AMQP property holds 255, and content type and ids hold more.
const MOST_NAME: usize = 90;

/// A file's name, or as much of it as has room beside a record.
pub fn shown(name: &str) -> String {
    let mut room = MOST_NAME;
    let fits = |c: &char| {
        let bytes = percent_encode(c.encode_utf8(&mut [0; 4])).len();
        let left = room.checked_sub(bytes);
        room = left.unwrap_or(0);
        left.is_some()
    };
    name.chars().take_while(fits).collect()
}

impl Origin {
    /// The content type of a document from there.
    pub fn content_type(&self, media_type: &str) -> String {
        let mut text = format!(
            "{media_type}; file={}; digest={}",
            percent_encode(&shown(&self.file)),
            percent_encode(&self.digest)
        );
        if self.row > 0 {
            text.push_str(&format!("; row={}", self.row));
        }
        if let Some(change) = self.change {
            text.push_str(&format!("; change={}", change.as_str()));
        }
        text
    }

    /// What a content type says of it; nothing for a document that came in no file.
    pub fn of(content_type: &str) -> Option<Origin> {
        let parameter = |name: &str| {
            let parts = content_type.split(';').skip(1).filter_map(|part| part.trim().split_once('='));
            parts.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
        };
        Some(Origin {
            file: percent_decode(parameter("file")?)?,
            digest: parameter("digest").and_then(percent_decode).unwrap_or_default(),
            row: parameter("row").and_then(|row| row.parse().ok()).unwrap_or(0),
            change: parameter("change").and_then(Change::parse),
        })
    }

    /// What mappings read of it with `cause`.
    pub fn tree(&self) -> Tree {
        let mut record = Record::new();
        record.push(Name::plain("file"), Tree::text(self.file.as_str()));
        record.push(Name::plain("digest"), Tree::text(self.digest.as_str()));
        if self.row > 0 {
            record.push(Name::plain("row"), Tree::integer(i64::try_from(self.row).unwrap_or(i64::MAX)));
        }
        if let Some(change) = self.change {
            record.push(Name::plain("change"), Tree::text(change.as_str()));
        }
        Tree::Record(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_comes_back_from_its_content_type() {
        let origin = Origin {
            file: "a; b=\"ü\".csv".to_owned(),
            digest: "5f2c9e0b71aa".to_owned(),
            row: 17,
            change: Some(Change::Removed),
        };
        let text = origin.content_type("text/csv");
        assert!(text.is_ascii(), "{text}");
        assert_eq!(Origin::of(&text), Some(origin));
        assert_eq!(Origin::of("text/csv; charset=utf-8"), None);
        let long = Origin { file: "ü".repeat(120), ..Origin::of(&text).unwrap() };
        assert!(long.content_type("application/x-www-form-urlencoded").len() < 255);
    }
}

//! The tree as the schema validator reads it: where it stands, without a copy of it in the validator's own form.
//!
//! An event's data have no repeated names: JSON refuses them, and mappings write lists.

use crate::tree::{Record, Tree};
use jsonschema::{
    JsonType,
    json::{Array, Json, JsonNumber, Node, NodeIdentity, Object},
};
use serde_json::{Number, Value};
use std::borrow::Cow;

/// Trees as a representation of JSON.
#[derive(Debug)]
pub struct Trees;

impl Json for Trees {
    type Node<'a> = &'a Tree;
    type PreparedKey = String;
    type StringBuffer = ();
    // A record is looked through from its beginning: one walk over its members does for many lookups.
    const KEYS_PER_LOOKUP: usize = 2;
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>((): &mut (), string: &str, f: impl FnOnce(&Tree) -> T) -> T {
        f(&Tree::text(string))
    }
}

impl<'a> Node<'a, Trees> for &'a Tree {
    type Object = &'a Record;
    type Array = &'a [Tree];
    type Number = Digits<'a>;

    fn as_object(&self) -> Option<&'a Record> {
        self.as_record()
    }

    fn as_array(&self) -> Option<&'a [Tree]> {
        match self {
            Tree::List(items) => Some(items),
            _ => None,
        }
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        match self {
            Tree::Text(text) => Some(Cow::Borrowed(text)),
            _ => None,
        }
    }

    fn as_number(&self) -> Option<Digits<'a>> {
        match self {
            Tree::Number(digits) => Some(Digits(digits)),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match self {
            Tree::Bool(b) => Some(*b),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Tree::Null)
    }

    fn json_type(&self) -> JsonType {
        match self {
            Tree::Null => JsonType::Null,
            Tree::Bool(_) => JsonType::Boolean,
            Tree::Number(_) => JsonType::Number,
            Tree::Text(_) => JsonType::String,
            Tree::List(_) => JsonType::Array,
            Tree::Record(_) => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &Value) -> bool {
        match (self, expected) {
            (Tree::Text(text), Value::String(expected)) => text == expected,
            (Tree::Bool(b), Value::Bool(expected)) => b == expected,
            (Tree::Null, Value::Null) => true,
            (Tree::Text(_) | Tree::Bool(_) | Tree::Null, _) => false,
            (Tree::Number(_) | Tree::List(_) | Tree::Record(_), _) => {
                jsonschema::json::cmp::equal(&self.to_json(), expected)
            }
        }
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(self.to_json())
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref::<Tree>(self) as usize))
    }
}

/// A number by its digits.
#[derive(Debug, Clone, Copy)]
pub struct Digits<'a>(&'a str);

impl JsonNumber for Digits<'_> {
    fn as_u64(&self) -> Option<u64> {
        self.0.parse().ok()
    }

    fn as_i64(&self) -> Option<i64> {
        self.0.parse().ok()
    }

    fn as_f64(&self) -> Option<f64> {
        self.0.parse().ok()
    }

    fn as_str(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.0)
    }

    fn to_number(&self) -> Cow<'_, Number> {
        let whole = self.as_i64().map(Number::from).or_else(|| self.as_u64().map(Number::from));
        let number = whole.or_else(|| self.as_f64().and_then(Number::from_f64));
        // Digits beyond all floats (1e999): no bound of a schema is as large.
        Cow::Owned(number.unwrap_or_else(|| Number::from(i64::MAX)))
    }

    /// Whole numbers may be written as 1.0 or 1e2 (JSON Schema 2020-12, core s.4.2.3).
    fn is_integer(&self) -> bool {
        self.as_i64().is_some()
            || self.as_f64().is_some_and(|float| float.is_finite() && float.fract() == 0.0)
    }
}

/// The members of a record.
#[derive(Debug)]
pub struct Members<'a>(std::slice::Iter<'a, (crate::tree::Name, Tree)>);

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a Tree);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, tree)| (name.local.as_str(), tree))
    }
}

impl<'a> Object<'a, Trees> for &'a Record {
    type Node = &'a Tree;
    type MemberName = &'a str;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        self.entries().len()
    }

    fn get(&self, key: &String) -> Option<&'a Tree> {
        self.get_local(key)
    }

    fn members(&self) -> Members<'a> {
        Members(self.entries().iter())
    }
}

impl<'a> Array<'a, Trees> for &'a [Tree] {
    type Node = &'a Tree;
    type ElementsIter = std::slice::Iter<'a, Tree>;

    fn len(&self) -> usize {
        <[Tree]>::len(self)
    }

    fn elements(&self) -> std::slice::Iter<'a, Tree> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The validator's own test of a representation.
    #[test]
    fn a_tree_is_read_as_the_validator_expects() {
        let document = jsonschema::json::conformance::document();
        let tree = Tree::from_json(&document);
        jsonschema::json::conformance::assert_conformance::<Trees>(&&tree);
    }

    #[test]
    fn digits_beyond_64_bits_are_still_numbers() {
        let digits = Digits("18446744073709551616");
        assert!(digits.is_integer() && digits.as_u64().is_none() && digits.as_f64().is_some());
        assert!(!Digits("0.5").is_integer() && Digits("1.0").is_integer() && Digits("1e2").is_integer());
    }
}

//! Namespace prefixes of a mapping or a document to be written: which prefix stands for which URI.

use std::sync::Arc;

/// Prefixes and their namespaces, in the order in which they are declared. The empty prefix is the default namespace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Namespaces(Vec<(String, Arc<str>)>);

impl Namespaces {
    /// The namespace of a prefix.
    pub fn uri(&self, prefix: &str) -> Option<&Arc<str>> {
        self.0.iter().find(|(p, _)| p == prefix).map(|(_, uri)| uri)
    }

    /// The prefix under which a namespace was declared.
    pub fn prefix(&self, uri: &str) -> Option<&str> {
        self.0.iter().find(|(_, u)| &**u == uri).map(|(p, _)| p.as_str())
    }

    /// All declarations, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<str>)> {
        self.0.iter().map(|(prefix, uri)| (prefix.as_str(), uri))
    }

    /// The prefixes, for a suggestion.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(prefix, _)| prefix.as_str())
    }
}

impl<P: Into<String>, U: Into<Arc<str>>> FromIterator<(P, U)> for Namespaces {
    fn from_iter<I: IntoIterator<Item = (P, U)>>(pairs: I) -> Namespaces {
        Namespaces(pairs.into_iter().map(|(prefix, uri)| (prefix.into(), uri.into())).collect())
    }
}

//! Files of a system as an adapter writes about them: which are picked up, when they are complete, what becomes of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// We pick up files, each record of which is a document.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PickupKeys {
    /// The folder, below the system's own; a template of `settings`. Default: the system's own.
    pub folder: Option<String>,
    /// Which files: `*` stands for any characters, `?` for one; a template of `settings`.
    pub pattern: String,
    /// Capital and small letters of names count the same.
    #[serde(default)]
    pub ignore_case: bool,
    /// How often we look. Default: `1m`.
    pub every: Option<String>,
    /// A file is complete when its size and time have not changed for so long. Default: `10s`. Not with `done`.
    pub complete: Option<String>,
    /// A file is complete when a second file of this name is there: `{name}.done`. Not with `complete`.
    pub done: Option<String>,
    /// What says the order of the files: `name`, or the place of a serial number or date in a record's document, such as one
    /// of its header (`header/serial`). Runs of digits count as numbers, all else as letters. A file that is not above the
    /// last one that counts waits for a person (`packhorse extracts`). Absent: files count as they come, and a compared one
    /// that was written before the last one that counts waits.
    pub sequence: Option<String>,
    /// What becomes of the file in the system when we have it. Default: `archive`.
    #[serde(default)]
    pub then: Then,
    /// The folder for files that are done, below the system's own; a template of `settings`. Default: `done`.
    pub archive: Option<String>,
    /// The folder for files that are refused, each with its reason in a file beside it. Default: `failed`.
    pub failed: Option<String>,
    /// How large a file may be. Default: `1 GiB`.
    pub limit: Option<String>,
}

/// What becomes of a file in the system when we have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// It is moved into the archive folder.
    #[default]
    Archive,
    /// It stays; it is taken again only when its size, time and bytes are others.
    Leave,
    /// It is deleted.
    Delete,
}

/// What we pick up is a whole extract, or a query gives everything there is: what is new, changed or gone since the last one is news, nothing else. The first one
/// is the baseline and says nothing.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompareKeys {
    /// The places in a record that together say which it is: `["CHILD", "DECOM"]`. No two rows of an extract have the same.
    pub key: Vec<String>,
    /// Places in a record that may change without being news: `["EXTRACT_DATE"]`.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// An extract in which more of the last one's rows are missing waits for a person. Default: `20%`.
    pub most_removed: Option<String>,
    /// An extract in which more of the rows say something else waits for a person. Default: `60%`.
    pub most_changed: Option<String>,
    /// The first extract is news as well: every row of it is `created`.
    #[serde(default)]
    pub first_is_news: bool,
}

/// What has become of a record since the last extract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Its key is new.
    Created,
    /// It says something else.
    Changed,
    /// Its key is gone.
    Removed,
}

impl Change {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Change::Created => "created",
            Change::Changed => "changed",
            Change::Removed => "removed",
        }
    }

    /// The change of that name.
    pub fn parse(text: &str) -> Option<Change> {
        [Change::Created, Change::Changed, Change::Removed].into_iter().find(|change| change.as_str() == text)
    }
}

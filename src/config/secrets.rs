//! Secrets: references in files, values only in memory.

use crate::code::Code;
use secrecy::{ExposeSecret as _, SecretString};
use std::{fmt, path::PathBuf};

/// Where a secret is to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// An environment variable: `env:NAME`.
    Environment(String),
    /// A file, its last line end left out: `file:/path`.
    File(PathBuf),
    /// A credential of systemd: `cred:name` (a file in `$CREDENTIALS_DIRECTORY`).
    Credential(String),
}

/// Why a secret cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoSecret {
    /// The code.
    pub code: Code,
    /// What is wrong, without the secret.
    pub what: String,
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::Environment(name) => write!(f, "env:{name}"),
            SecretRef::File(path) => write!(f, "file:{}", path.display()),
            SecretRef::Credential(name) => write!(f, "cred:{name}"),
        }
    }
}

impl SecretRef {
    /// A reference as written; `None` if this is not one, which mostly means that a secret stands in clear.
    pub fn parse(text: &str) -> Option<SecretRef> {
        match text.split_once(':')? {
            ("env", name) if !name.is_empty() => Some(SecretRef::Environment(name.to_owned())),
            ("file", path) if !path.is_empty() => Some(SecretRef::File(PathBuf::from(path))),
            ("cred", name) if !name.is_empty() && !name.contains('/') => {
                Some(SecretRef::Credential(name.to_owned()))
            }
            _ => None,
        }
    }

    /// The secret.
    ///
    /// # Errors
    /// A variable that is not set, a file that cannot be read, an empty secret.
    pub fn resolve(&self) -> Result<SecretString, NoSecret> {
        let no = |what: String| NoSecret { code: Code::SecretUnavailable, what };
        let text = match self {
            SecretRef::Environment(name) => {
                std::env::var(name).map_err(|_| no(format!("the environment variable {name} is not set")))?
            }
            SecretRef::File(path) => read(path)?,
            SecretRef::Credential(name) => match std::env::var_os("CREDENTIALS_DIRECTORY") {
                Some(folder) => read(&PathBuf::from(folder).join(name))?,
                None => {
                    return Err(no(format!(
                        "cred:{name} needs systemd's CREDENTIALS_DIRECTORY, which is not set"
                    )));
                }
            },
        };
        let secret =
            SecretString::from(text.strip_suffix('\n').unwrap_or(&text).trim_end_matches('\r').to_owned());
        match secret.expose_secret().is_empty() {
            true => Err(no(format!("the secret at {self} is empty"))),
            false => Ok(secret),
        }
    }
}

fn read(path: &PathBuf) -> Result<String, NoSecret> {
    std::fs::read_to_string(path).map_err(|error| NoSecret {
        code: Code::SecretUnavailable,
        what: format!("the secret in {} cannot be read: {error}", path.display()),
    })
}

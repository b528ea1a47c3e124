//! What the last extract of a route said, as a hash per key.
//!
//! It holds not what a row said, only that it was said: keys stand here in clear, since an event that says "gone" has
//! nothing else to say.

use super::{
    RouteNumber, Store, StoreError,
    sql::{self, Tx, params},
};

/// What a row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Hash of its key.
    pub key: [u8; 16],
    /// Hash of what it says.
    pub hash: [u8; 16],
    /// Its key's values, as a JSON list.
    pub name: String,
}

/// What counts as said from here on.
#[derive(Debug, Clone, Default)]
pub struct Compared {
    /// Rows as they are now.
    pub said: Vec<Said>,
    /// Keys that are gone.
    pub gone: Vec<[u8; 16]>,
}

impl Compared {
    pub(super) fn write(&self, tx: &Tx<'_>, route: RouteNumber) -> sql::Result<()> {
        for row in &self.said {
            tx.run(
                "INSERT INTO extract_row (route, key, hash, name) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (route, key) DO UPDATE SET hash = ?3, name = ?4",
                params![route.0, row.key, row.hash, row.name],
            )?;
        }
        for key in &self.gone {
            tx.run("DELETE FROM extract_row WHERE route = ?1 AND key = ?2", params![route.0, key])?;
        }
        Ok(())
    }
}

impl Store {
    /// The next keys and hashes of what the last extract said, in the order of the keys.
    ///
    /// # Errors
    /// The store failed.
    pub async fn said(
        &self,
        route: RouteNumber,
        behind: Option<[u8; 16]>,
        most: usize,
    ) -> Result<Vec<([u8; 16], [u8; 16])>, StoreError> {
        self.write("comparing an extract", move |tx| {
            let behind = behind.as_ref().map_or(&[][..], |key| key.as_slice());
            tx.all(
                "SELECT key, hash FROM extract_row WHERE route = ?1 AND key > ?2 ORDER BY key LIMIT ?3",
                params![route.0, behind, most as i64],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
        })
        .await
    }

    /// The names of these keys, in their order; an empty list for one that is not known.
    ///
    /// # Errors
    /// The store failed.
    pub async fn said_names(
        &self,
        route: RouteNumber,
        keys: Vec<[u8; 16]>,
    ) -> Result<Vec<String>, StoreError> {
        self.write("comparing an extract", move |tx| {
            let sql = "SELECT coalesce(max(name), '[]') FROM extract_row WHERE route = ?1 AND key = ?2";
            keys.iter().map(|key| tx.value(sql, params![route.0, key])).collect()
        })
        .await
    }

    /// Takes what an extract says as said, without news of it.
    ///
    /// # Errors
    /// The store failed.
    pub async fn say(&self, route: RouteNumber, compared: Compared) -> Result<(), StoreError> {
        self.write("taking an extract as the baseline", move |tx| compared.write(tx, route)).await
    }
}

//! What a database's SQLSTATE means for a statement. The texts of databases hold values ("Key (nino)=(...) already exists"), so
//! only those go on that speak of the statement itself.

use crate::{
    code::Code,
    verdict::{Class, Failure},
};

/// What a database said of a failure.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// The SQLSTATE: five characters.
    pub state: String,
    /// The database's own number, where there is one.
    pub native: i32,
    /// Its text. Not told unless it speaks of the statement only.
    pub message: String,
    /// The constraint.
    pub constraint: Option<String>,
    /// The table.
    pub table: Option<String>,
    /// The column, or our parameter.
    pub column: Option<String>,
}

/// What happened when a statement could not be carried out, for somebody who knows that it was not.
pub fn failure(said: &Said, file: &str) -> Failure {
    let state = said.state.as_str();
    let code = code(said);
    let class = match code {
        Code::StatementRefused | Code::DuplicateRow => Class::Refused,
        Code::LoginRefused | Code::SystemUnreachable => Class::Away,
        _ => Class::NotDone,
    };
    let mut what = match code {
        Code::StatementRefused => "the database refuses the values".to_owned(),
        Code::DuplicateRow => "the database has such a row already".to_owned(),
        Code::NotPermitted => "the database does not permit it".to_owned(),
        Code::StatementWrong => "the database does not understand the statement".to_owned(),
        Code::LoginRefused => "the database refuses our login".to_owned(),
        Code::SystemBusy => "the database is busy".to_owned(),
        Code::SystemUnreachable => "the database cannot be reached".to_owned(),
        _ => "the database failed".to_owned(),
    };
    what = match file {
        "" => format!("{what} (SQLSTATE {state})"),
        file => format!("`{file}`: {what} (SQLSTATE {state})"),
    };
    for (name, part) in [("constraint", &said.constraint), ("table", &said.table), ("column", &said.column)] {
        if let Some(part) = part.as_ref().filter(|part| !part.is_empty()) {
            what.push_str(&format!(", {name} `{part}`"));
        }
    }
    let of_the_statement = matches!(code, Code::StatementWrong | Code::NotPermitted);
    if of_the_statement || speaks_of_the_statement(state) {
        what.push_str(&format!(": {}", said.message.lines().next().unwrap_or_default()));
    }
    let field = said.constraint.clone().or_else(|| said.column.clone()).unwrap_or_default();
    Failure { code, class, what, field, retry_after: None }
}

fn code(said: &Said) -> Code {
    let state = said.state.as_str();
    // SQL Server 2601 and 2627, MySQL 1062, Oracle 1: a unique index.
    let unique = matches!(said.native, 2601 | 2627 | 1062 | 1) && state == "23000";
    // SQLite has one SQLSTATE for everything; its texts are its own, and the same in every language.
    let sqlite = |text: &str| state == "HY000" && said.message.contains(text);
    match (state.get(..2).unwrap_or_default(), state) {
        (_, "23505") => Code::DuplicateRow,
        _ if unique || sqlite("UNIQUE constraint failed") => Code::DuplicateRow,
        ("22" | "23", _) => Code::StatementRefused,
        _ if sqlite("constraint failed") => Code::StatementRefused,
        // A rule of the database's own makers: a trigger, a procedure.
        (_, "P0001" | "44000") => Code::StatementRefused,
        (_, "42501") => Code::NotPermitted,
        // SQL Server 229 and 230: permission denied on an object, on a column.
        (_, "42000") if matches!(said.native, 229 | 230) => Code::NotPermitted,
        (_, "25006") => Code::NotPermitted,
        _ if sqlite("readonly") => Code::NotPermitted,
        ("42" | "07" | "0A" | "34" | "26", _) => Code::StatementWrong,
        _ if sqlite("no such") || sqlite("syntax error") => Code::StatementWrong,
        ("28", _) => Code::LoginRefused,
        (_, "3D000" | "3F000") => Code::StatementWrong,
        // Deadlock, serialization, no lock in time, out of connections or memory, cancelled because it took too long.
        ("40" | "53" | "55", _) | (_, "57014" | "HYT00" | "HYT01") => Code::SystemBusy,
        _ if sqlite("database is locked") || sqlite("table is locked") => Code::SystemBusy,
        ("08" | "57", _) => Code::SystemUnreachable,
        _ => Code::SystemFails,
    }
}

/// Of the statement, names and rights: not of values.
fn speaks_of_the_statement(state: &str) -> bool {
    matches!(
        state.get(..2).unwrap_or_default(),
        "07" | "08" | "0A" | "25" | "28" | "3D" | "3F" | "40" | "42" | "53" | "55" | "57"
    ) || matches!(state, "HYT00" | "HYT01" | "IM002" | "01000")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(state: &str, native: i32, message: &str) -> Failure {
        failure(
            &Said { state: state.to_owned(), native, message: message.to_owned(), ..Said::default() },
            "x.sql",
        )
    }

    #[test]
    fn values_of_a_message_are_never_told() {
        for state in ["22P02", "23505", "23000", "P0001", "HY000", "22001"] {
            let failure = of(state, 0, "Key (nino)=(QQ123456C) already exists");
            assert!(!failure.what.contains("QQ123456C"), "{}", failure.what);
        }
        assert!(of("42703", 0, "column \"x\" does not exist").what.contains("column \"x\" does not exist"));
    }

    #[test]
    fn a_state_says_whether_trying_again_may_help() {
        let cases = [
            ("23505", 0, "", Code::DuplicateRow, Class::Refused),
            ("23000", 2627, "", Code::DuplicateRow, Class::Refused),
            ("HY000", 19, "UNIQUE constraint failed: t.id (19)", Code::DuplicateRow, Class::Refused),
            ("23000", 547, "", Code::StatementRefused, Class::Refused),
            ("23502", 0, "", Code::StatementRefused, Class::Refused),
            ("22001", 0, "", Code::StatementRefused, Class::Refused),
            ("HY000", 19, "NOT NULL constraint failed: t.id (19)", Code::StatementRefused, Class::Refused),
            ("40001", 1205, "", Code::SystemBusy, Class::NotDone),
            ("40P01", 0, "", Code::SystemBusy, Class::NotDone),
            ("55P03", 0, "", Code::SystemBusy, Class::NotDone),
            ("57014", 0, "", Code::SystemBusy, Class::NotDone),
            ("42501", 0, "", Code::NotPermitted, Class::NotDone),
            ("42000", 229, "", Code::NotPermitted, Class::NotDone),
            ("42S02", 0, "", Code::StatementWrong, Class::NotDone),
            ("42P01", 0, "", Code::StatementWrong, Class::NotDone),
            ("HY000", 1, "no such table: t (1)", Code::StatementWrong, Class::NotDone),
            ("28P01", 0, "", Code::LoginRefused, Class::Away),
            ("08006", 0, "", Code::SystemUnreachable, Class::Away),
            ("57P01", 0, "", Code::SystemUnreachable, Class::Away),
        ];
        for (state, native, message, code, class) in cases {
            let failure = of(state, native, message);
            assert_eq!((failure.code, failure.class), (code, class), "{state} {native}");
        }
    }
}

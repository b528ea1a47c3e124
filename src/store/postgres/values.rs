//! Values on their way to the server and back.

use crate::store::sql::{Kind, Value};
use bytes::{BufMut as _, BytesMut};
use std::error::Error as StdError;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// The type of a parameter.
pub(super) fn of_kind(kind: Kind) -> Type {
    match kind {
        Kind::Int => Type::INT8,
        Kind::Text => Type::TEXT,
        Kind::Bytes => Type::BYTEA,
    }
}

/// A value on its way to the server.
#[derive(Debug)]
pub(super) struct Parameter<'a>(pub &'a Value<'a>);

impl ToSql for Parameter<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self.0 {
            Value::Null(_) => return Ok(IsNull::Yes),
            Value::Int(number) => out.put_i64(*number),
            // The server holds no NUL in a text; what may have one is there for people.
            Value::Text(text) if text.contains('\0') => {
                out.put_slice(text.replace('\0', "\u{fffd}").as_bytes());
            }
            Value::Text(text) => out.put_slice(text.as_bytes()),
            Value::Bytes(bytes) => out.put_slice(bytes),
        }
        Ok(IsNull::No)
    }

    fn accepts(of: &Type) -> bool {
        matches!(*of, Type::INT8 | Type::TEXT | Type::BYTEA)
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value<'a> {
    fn from_sql(of: &Type, raw: &'a [u8]) -> Result<Value<'a>, Box<dyn StdError + Sync + Send>> {
        Ok(match *of {
            Type::INT8 => Value::Int(i64::from_sql(of, raw)?),
            Type::INT4 => Value::Int(i64::from(i32::from_sql(of, raw)?)),
            Type::BOOL => Value::Int(i64::from(bool::from_sql(of, raw)?)),
            Type::BYTEA => Value::Bytes(raw),
            _ => Value::Text(std::str::from_utf8(raw)?),
        })
    }

    fn from_sql_null(of: &Type) -> Result<Value<'a>, Box<dyn StdError + Sync + Send>> {
        Ok(Value::Null(match *of {
            Type::BYTEA => Kind::Bytes,
            Type::INT8 | Type::INT4 | Type::BOOL => Kind::Int,
            _ => Kind::Text,
        }))
    }

    fn accepts(of: &Type) -> bool {
        matches!(
            *of,
            Type::INT8 | Type::INT4 | Type::BOOL | Type::BYTEA | Type::TEXT | Type::VARCHAR | Type::NAME
        )
    }
}

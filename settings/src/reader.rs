//! Reads a tree as any type that serde can, and says at which path it could not.

use std::{collections::btree_map, fmt, slice};

use serde::{
    Deserialize,
    de::{
        self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess,
        Unexpected, Visitor, value::MapAccessDeserializer,
    },
    forward_to_deserialize_any,
};

use super::tree::{Node, Segment, Value};

pub(super) fn read<'de, T: Deserialize<'de>>(node: &Node) -> Result<T, Error> {
    T::deserialize(Reader(node)).map_err(|mut error| {
        error.path.reverse();
        error
    })
}

/// Why a value cannot be read, and where it is.
#[derive(Debug)]
pub(super) struct Error {
    /// While it rises through the tree: innermost first.
    pub(super) path: Vec<Segment>,
    pub(super) message: String,
    /// The key that a table lacks, where that is what is wrong with it.
    pub(super) lacks: Option<&'static str>,
}

impl Error {
    fn within(mut self, segment: Segment) -> Self {
        self.path.push(segment);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { path: Vec::new(), message: message.to_string(), lacks: None }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format!("is {found}, expected {expected}"))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format!("there is no such key here; there are: {}", expected.join(", ")))
    }

    fn unknown_variant(found: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format!("is \"{found}\", expected one of: {}", expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { lacks: Some(field), ..Self::custom(format!("`{field}` is missing here")) }
    }
}

struct Reader<'a>(&'a Node);

impl Reader<'_> {
    /// The text of a variable, where the value is one.
    fn text(&self) -> Option<&str> {
        match &self.0.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn parse(&self, text: &str, what: &str) -> Result<Node, Error> {
        Node::parse_value(text, &self.0.origin)
            .map_err(|why| de::Error::custom(format!("is `{text}`, expected {what} ({why})")))
    }
}

fn number<'de, V: Visitor<'de>>(visitor: V, number: i128) -> Result<V::Value, Error> {
    if let Ok(number) = i64::try_from(number) {
        visitor.visit_i64(number)
    } else if let Ok(number) = u64::try_from(number) {
        visitor.visit_u64(number)
    } else {
        visitor.visit_i128(number)
    }
}

/// A number of the type asked for: of a variable's text, or as it stands.
macro_rules! numbers {
    ($read:expr => $($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.text() {
                Some(text) => match text.trim().parse() {
                    Ok(parsed) => $read(visitor, parsed),
                    Err(_) => Err(de::Error::invalid_type(Unexpected::Str(text), &visitor)),
                },
                None => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::Boolean(boolean) => visitor.visit_bool(*boolean),
            Value::Integer(integer) => number(visitor, *integer),
            Value::Float(float) => visitor.visit_f64(*float),
            Value::String(text) => visitor.visit_str(text),
            Value::Text(text) => match Node::parse_value(text, &self.0.origin) {
                Ok(node) => Reader(&node).deserialize_any(visitor),
                Err(_) => visitor.visit_str(text),
            },
            Value::List(items) => visitor.visit_seq(ListAccess(items.iter())),
            Value::Table(entries) => visitor.visit_map(TableAccess::new(entries.iter())),
        }
    }

    numbers! { number =>
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    numbers! { Visitor::visit_f64 => deserialize_f32 deserialize_f64 }

    numbers! { Visitor::visit_bool => deserialize_bool }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.text() {
            Some(text) => visitor.visit_str(text),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    /// A variable's list is `a,b` or, where it starts with a bracket, TOML.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.text() {
            Some(text) if text.trim_start().starts_with('[') => {
                Reader(&self.parse(text, "a list")?).deserialize_any(visitor)
            }
            Some(text) => {
                let items: Vec<(usize, Node)> = text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| Node {
                        value: Value::Text(item.to_owned()),
                        origin: self.0.origin.clone(),
                    })
                    .enumerate()
                    .collect();
                visitor.visit_seq(ListAccess(items.iter()))
            }
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.text() {
            Some(text) => Reader(&self.parse(text, "a table")?).deserialize_any(visitor),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::String(text) | Value::Text(text) => {
                visitor.visit_enum(text.as_str().into_deserializer())
            }
            Value::Table(entries) => {
                visitor.visit_enum(MapAccessDeserializer::new(TableAccess::new(entries.iter())))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct ListAccess<'a>(slice::Iter<'a, (usize, Node)>);

impl<'de> SeqAccess<'de> for ListAccess<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some((index, node)) = self.0.next() else { return Ok(None) };
        seed.deserialize(Reader(node))
            .map(Some)
            .map_err(|error| error.within(Segment::Index(*index)))
    }
}

struct TableAccess<'a> {
    entries: btree_map::Iter<'a, String, Node>,
    value: Option<(&'a str, &'a Node)>,
}

impl<'a> TableAccess<'a> {
    fn new(entries: btree_map::Iter<'a, String, Node>) -> Self {
        Self { entries, value: None }
    }
}

impl<'de> MapAccess<'de> for TableAccess<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((key, node)) = self.entries.next() else { return Ok(None) };
        self.value = Some((key, node));
        seed.deserialize(key.as_str().into_deserializer())
            .map(Some)
            .map_err(|error: Error| error.within(Segment::Key(key.clone())))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((key, node)) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(Reader(node)).map_err(|error| error.within(Segment::Key(key.to_owned())))
    }
}

//! Records as DynamoDB items: serde's data model on one side, typed attributes on the other.
//!
//! | JSON | attribute |
//! |---|---|
//! | string, number, boolean, null | `S`, `N`, `BOOL`, `NULL` |
//! | array, object | `L`, `M` |
//!
//! The way back also reads sets as arrays. Binary values have no JSON form and are read as null: only
//! an attribute that a record does not know, or knows to be binary, can hold one.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use serde::{
    Deserializer, Serialize,
    de::{
        DeserializeOwned, IntoDeserializer, Visitor,
        value::{Error, MapAccessDeserializer, MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::Value;

use crate::calls::Key;

pub(crate) type Item = HashMap<String, AttributeValue>;

pub(crate) const PK: &str = "pk";
pub(crate) const SK: &str = "sk";

/// What a list or a map costs beside its content, and what each of its elements adds.
const COLLECTION_BYTES: usize = 3;
const ELEMENT_BYTES: usize = 1;

/// A record's fields and its key, as an item.
pub(crate) fn encode(key: &Key, record: &impl Serialize) -> Result<Item, String> {
    let Value::Object(fields) = serde_json::to_value(record).map_err(|e| e.to_string())? else {
        return Err("the record is not an object".to_owned());
    };
    let mut item: Item = fields.into_iter().map(|(name, value)| (name, attribute(value))).collect();
    item.insert(PK.to_owned(), AttributeValue::S(key.pk.clone()));
    item.insert(SK.to_owned(), AttributeValue::S(key.sk.clone()));
    Ok(item)
}

/// The record in an item; what the record does not know is ignored.
pub(crate) fn decode<T: DeserializeOwned>(item: Item) -> Result<T, String> {
    T::deserialize(Attribute(AttributeValue::M(item))).map_err(|e| e.to_string())
}

/// A whole, non-negative number among an item's attributes.
pub(crate) fn integer(item: &Item, name: &str) -> Option<u64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

/// The item's key, for messages; empty where it has none.
pub(crate) fn key_of(item: &Item) -> Key {
    let text = |name| item.get(name).and_then(|v| v.as_s().ok()).cloned().unwrap_or_default();
    Key { pk: text(PK), sk: text(SK) }
}

/// The item's size as DynamoDB counts it, from "DynamoDB item sizes and formats" of its guide.
pub(crate) fn size_bytes(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + attribute_bytes(value)).sum()
}

fn attribute(value: Value) -> AttributeValue {
    match value {
        Value::Null => AttributeValue::Null(true),
        Value::Bool(flag) => AttributeValue::Bool(flag),
        Value::Number(n) => AttributeValue::N(n.to_string()),
        Value::String(text) => AttributeValue::S(text),
        Value::Array(values) => AttributeValue::L(values.into_iter().map(attribute).collect()),
        Value::Object(fields) => AttributeValue::M(
            fields.into_iter().map(|(name, value)| (name, attribute(value))).collect(),
        ),
    }
}

/// An attribute, as serde reads it.
struct Attribute(AttributeValue);

impl<'de> IntoDeserializer<'de, Error> for Attribute {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Attribute {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let number = |text| Self(AttributeValue::N(text));
        match self.0 {
            AttributeValue::S(text) => visitor.visit_string(text),
            AttributeValue::N(text) => visit_number(&text, visitor),
            AttributeValue::Bool(flag) => visitor.visit_bool(flag),
            AttributeValue::L(values) => {
                SeqDeserializer::new(values.into_iter().map(Self)).deserialize_any(visitor)
            }
            AttributeValue::M(fields) => fields_of(fields).deserialize_any(visitor),
            AttributeValue::Ss(texts) => {
                SeqDeserializer::new(texts.into_iter()).deserialize_any(visitor)
            }
            AttributeValue::Ns(texts) => {
                SeqDeserializer::new(texts.into_iter().map(number)).deserialize_any(visitor)
            }
            _ => visitor.visit_unit(),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            AttributeValue::Null(_) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            AttributeValue::S(name) => visitor.visit_enum(name.into_deserializer()),
            AttributeValue::M(fields) => {
                visitor.visit_enum(MapAccessDeserializer::new(fields_of(fields)))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier
    }
}

fn fields_of<'de>(
    fields: Item,
) -> MapDeserializer<'de, impl Iterator<Item = (String, Attribute)>, Error> {
    MapDeserializer::new(fields.into_iter().map(|(name, value)| (name, Attribute(value))))
}

/// DynamoDB writes 150.0 back as `150`, so integers are tried first; serde reads them as floats, too.
fn visit_number<'de, V: Visitor<'de>>(text: &str, visitor: V) -> Result<V::Value, Error> {
    if let Ok(n) = text.parse::<u64>() {
        return visitor.visit_u64(n);
    }
    if let Ok(n) = text.parse::<i64>() {
        return visitor.visit_i64(n);
    }
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() => visitor.visit_f64(n),
        _ => visitor.visit_unit(),
    }
}

fn attribute_bytes(attribute: &AttributeValue) -> usize {
    match attribute {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(text) => number_bytes(text),
        AttributeValue::B(bytes) => bytes.as_ref().len(),
        AttributeValue::L(values) => {
            COLLECTION_BYTES
                + values.iter().map(|v| ELEMENT_BYTES + attribute_bytes(v)).sum::<usize>()
        }
        AttributeValue::M(fields) => {
            let fields = fields.iter();
            COLLECTION_BYTES
                + fields
                    .map(|(name, v)| ELEMENT_BYTES + name.len() + attribute_bytes(v))
                    .sum::<usize>()
        }
        _ => 1,
    }
}

/// One byte for two significant digits, and one more; a sign costs a byte.
fn number_bytes(text: &str) -> usize {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    digits.div_ceil(2) + 1 + usize::from(text.starts_with('-'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn key() -> Key {
        Key { pk: "p".to_owned(), sk: "s".to_owned() }
    }

    #[test]
    fn values_survive_both_ways() {
        let record = json!({
            "text": "é", "empty": "", "whole": 18_446_744_073_709_551_615_u64, "negative": -3,
            "float": 0.1, "exponent": 1e-7, "flag": true, "nothing": null,
            "list": [1, "two", [3.5]], "map": {"a": {"b": 1}},
        });
        let mut back: Value = decode(encode(&key(), &record).unwrap()).unwrap();
        back.as_object_mut().unwrap().retain(|name, _| name != PK && name != SK);
        assert_eq!(back, record);
    }

    #[test]
    fn sets_and_binary_of_a_newer_version_do_not_break_reading() {
        let item = Item::from([
            ("set".to_owned(), AttributeValue::Ns(vec!["1".to_owned()])),
            ("blob".to_owned(), AttributeValue::B(vec![1].into())),
        ]);
        assert_eq!(decode::<Value>(item).unwrap(), json!({"set": [1], "blob": null}));
    }

    #[test]
    fn size_is_counted_as_the_service_counts_it() {
        let item = encode(&key(), &json!({"ab": "cde", "n": 12345, "l": [true, "xy"]})).unwrap();
        let keys = 2 + 1 + 2 + 1;
        assert_eq!(size_bytes(&item), keys + (2 + 3) + (1 + 4) + (1 + 3 + (1 + 1) + (1 + 2)));
    }
}

//! The JSON Schema of a configuration, read off its `Deserialize` by offering it probes: an author
//! derives what serde needs and writes nothing more.

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
    value::Error,
};
use serde_json::{Map, Value, json};

/// The schema of `T`. What cannot be told is left open.
pub(crate) fn of<T: DeserializeOwned>() -> Value {
    let Some(fields) = field_names::<T>() else {
        return json!({});
    };
    let properties: Map<_, _> = fields
        .iter()
        .map(|field| {
            let mut schema = json!({});
            // A probe's purpose is the note it leaves; it always ends in an error.
            let _ = T::deserialize(Struct { names: &mut None, field: Some((field, &mut schema)) });
            ((*field).to_owned(), schema)
        })
        .collect();
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

/// The keys `T` has, where it is a struct.
pub(crate) fn field_names<T: DeserializeOwned>() -> Option<&'static [&'static str]> {
    let mut names = None;
    let _ = T::deserialize(Struct { names: &mut names, field: None });
    names
}

/// Deserialises nothing: notes which kind of value was asked for.
struct Probe<'a> {
    schema: &'a mut Value,
}

impl Probe<'_> {
    fn note<T>(self, schema: Value) -> Result<T, Error> {
        *self.schema = schema;
        Err(noted())
    }
}

fn noted() -> Error {
    Error::custom("noted")
}

macro_rules! notes {
    ($($method:ident => $schema:tt),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            self.note(json!($schema))
        })*
    };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    notes! {
        deserialize_any => {}, deserialize_bool => {"type": "boolean"},
        deserialize_i8 => {"type": "integer"}, deserialize_i16 => {"type": "integer"},
        deserialize_i32 => {"type": "integer"}, deserialize_i64 => {"type": "integer"},
        deserialize_u8 => {"type": "integer", "minimum": 0},
        deserialize_u16 => {"type": "integer", "minimum": 0},
        deserialize_u32 => {"type": "integer", "minimum": 0},
        deserialize_u64 => {"type": "integer", "minimum": 0},
        deserialize_f32 => {"type": "number"}, deserialize_f64 => {"type": "number"},
        deserialize_char => {"type": "string"}, deserialize_str => {"type": "string"},
        deserialize_string => {"type": "string"}, deserialize_bytes => {},
        deserialize_byte_buf => {}, deserialize_unit => {"type": "null"},
        deserialize_identifier => {}, deserialize_ignored_any => {},
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: V,
    ) -> Result<V::Value, Error> {
        self.note(json!({"type": "null"}))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut items = json!({});
        let _ = visitor.visit_seq(Inner { key: None, schema: &mut items });
        self.note(json!({"type": "array", "items": items}))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, _: V) -> Result<V::Value, Error> {
        self.note(json!({"type": "array", "minItems": len, "maxItems": len}))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut values = json!({});
        let _ = visitor.visit_map(Inner { key: Some("key"), schema: &mut values });
        self.note(json!({"type": "object", "additionalProperties": values}))
    }

    /// A visitor answers for one field only, so the fields of a nested struct are named, not typed.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        let properties: Map<_, _> = fields.iter().map(|f| ((*f).to_owned(), json!({}))).collect();
        self.note(
            json!({"type": "object", "properties": properties, "additionalProperties": false}),
        )
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        self.note(json!({"enum": variants}))
    }
}

/// Offers one value, under `key` where it is a map's.
struct Inner<'a> {
    key: Option<&'static str>,
    schema: &'a mut Value,
}

impl<'de> MapAccess<'de> for Inner<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        match self.key.take() {
            Some(key) => seed.deserialize(serde::de::value::StrDeserializer::new(key)).map(Some),
            None => Err(noted()),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Probe { schema: self.schema })
    }
}

impl<'de> SeqAccess<'de> for Inner<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        seed.deserialize(Probe { schema: self.schema }).map(Some)
    }
}

/// Notes a struct's field names, and the kind of one field.
struct Struct<'a> {
    names: &'a mut Option<&'static [&'static str]>,
    field: Option<(&'static str, &'a mut Value)>,
}

impl<'de> Deserializer<'de> for Struct<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(noted())
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.names = Some(fields);
        match self.field {
            Some((key, schema)) => visitor.visit_map(Inner { key: Some(key), schema }),
            None => Err(noted()),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize, Default)]
    #[serde(default)]
    #[allow(dead_code)]
    struct Config {
        weight: f64,
        limit: Option<u32>,
        names: Vec<String>,
        pools: BTreeMap<String, Vec<String>>,
        mode: Mode,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "snake_case")]
    #[allow(dead_code)]
    enum Mode {
        #[default]
        Strict,
        NearBest,
    }

    #[test]
    fn a_schema_names_and_types_each_field() {
        let schema = of::<Config>();
        let fields = &schema["properties"];
        assert_eq!(fields["weight"], json!({"type": "number"}));
        assert_eq!(fields["limit"], json!({"type": "integer", "minimum": 0}));
        assert_eq!(fields["names"], json!({"type": "array", "items": {"type": "string"}}));
        let list = json!({"type": "array", "items": {"type": "string"}});
        assert_eq!(fields["pools"], json!({"type": "object", "additionalProperties": list}));
        assert_eq!(fields["mode"], json!({"enum": ["strict", "near_best"]}));
        assert_eq!(schema["additionalProperties"], json!(false));
    }
}

//! Items as DynamoDB's JSON, as in `{"pk": {"S": "a"}, "n": {"N": "1.50"}}`, without loss either way.

use aws_sdk_dynamodb::{primitives::Blob, types::AttributeValue};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use crate::item::Item;

pub(super) fn to_json(item: &Item) -> Result<Value, String> {
    fields_to_json(item.iter())
}

fn fields_to_json<'a>(
    fields: impl Iterator<Item = (&'a String, &'a AttributeValue)>,
) -> Result<Value, String> {
    let fields: Result<Map<String, Value>, String> =
        fields.map(|(name, value)| Ok((name.clone(), attribute_to_json(value)?))).collect();
    fields.map(Value::Object)
}

fn attribute_to_json(attribute: &AttributeValue) -> Result<Value, String> {
    Ok(match attribute {
        AttributeValue::S(text) => json!({"S": text}),
        AttributeValue::N(text) => json!({"N": text}),
        AttributeValue::Bool(flag) => json!({"BOOL": flag}),
        AttributeValue::Null(is_null) => json!({"NULL": is_null}),
        AttributeValue::B(blob) => json!({"B": BASE64_STANDARD.encode(blob)}),
        AttributeValue::Ss(texts) => json!({"SS": texts}),
        AttributeValue::Ns(texts) => json!({"NS": texts}),
        AttributeValue::Bs(blobs) => {
            let texts: Vec<String> = blobs.iter().map(|b| BASE64_STANDARD.encode(b)).collect();
            json!({"BS": texts})
        }
        AttributeValue::L(values) => {
            let values: Result<Vec<Value>, String> = values.iter().map(attribute_to_json).collect();
            json!({"L": values?})
        }
        AttributeValue::M(fields) => json!({"M": fields_to_json(fields.iter())?}),
        other => return Err(format!("an attribute of an unknown type cannot be kept: {other:?}")),
    })
}

pub(super) fn from_json(value: Value) -> Result<Item, String> {
    let Value::Object(fields) = value else {
        return Err("an item must be an object of attributes".to_owned());
    };
    fields
        .into_iter()
        .map(|(name, value)| match attribute_from_json(value) {
            Ok(attribute) => Ok((name, attribute)),
            Err(reason) => Err(format!("attribute `{name}`: {reason}")),
        })
        .collect()
}

fn attribute_from_json(value: Value) -> Result<AttributeValue, String> {
    const EXPECTED: &str = "it must be an object with one of S, N, B, BOOL, NULL, SS, NS, BS, L, M";
    let Value::Object(fields) = value else { return Err(EXPECTED.to_owned()) };
    let mut fields = fields.into_iter();
    let (Some((kind, value)), None) = (fields.next(), fields.next()) else {
        return Err(EXPECTED.to_owned());
    };
    Ok(match (kind.as_str(), value) {
        ("S", Value::String(text)) => AttributeValue::S(text),
        ("N", Value::String(text)) => AttributeValue::N(number(text)?),
        ("B", Value::String(text)) => AttributeValue::B(blob(&text)?),
        ("BOOL", Value::Bool(flag)) => AttributeValue::Bool(flag),
        ("NULL", Value::Bool(null)) => AttributeValue::Null(null),
        ("SS", Value::Array(values)) => AttributeValue::Ss(set(values, Ok)?),
        ("NS", Value::Array(values)) => AttributeValue::Ns(set(values, number)?),
        ("BS", Value::Array(values)) => AttributeValue::Bs(set(values, |text| blob(&text))?),
        ("L", Value::Array(values)) => AttributeValue::L(
            values.into_iter().map(attribute_from_json).collect::<Result<_, _>>()?,
        ),
        ("M", value @ Value::Object(_)) => AttributeValue::M(from_json(value)?),
        (kind, value) => return Err(format!("`{kind}` cannot be {value}; {EXPECTED}")),
    })
}

fn set<T>(
    values: Vec<Value>,
    element: impl Fn(String) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    if values.is_empty() {
        return Err("a set cannot be empty".to_owned());
    }
    let texts = values.into_iter().map(|value| match value {
        Value::String(text) => element(text),
        other => Err(format!("a set holds strings, not {other}")),
    });
    texts.collect()
}

fn blob(text: &str) -> Result<Blob, String> {
    BASE64_STANDARD.decode(text).map(Blob::new).map_err(|error| format!("no base64: {error}"))
}

/// Up to 38 digits, which no type of ours holds: it is only looked at.
fn number(text: String) -> Result<String, String> {
    let finite = text.parse::<f64>().is_ok_and(f64::is_finite);
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    if finite && plain { Ok(text) } else { Err(format!("`{text}` is no number")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::{collection, prelude::*};

    use super::*;

    fn any_attribute() -> impl Strategy<Value = AttributeValue> {
        let number = "-?[1-9][0-9]{0,37}(\\.[0-9]{1,5})?(E-?[1-9][0-9]?)?";
        let bytes = || collection::vec(any::<u8>(), 0..40).prop_map(Blob::new);
        let leaf = prop_oneof![
            any::<String>().prop_map(AttributeValue::S),
            number.prop_map(AttributeValue::N),
            any::<bool>().prop_map(AttributeValue::Bool),
            Just(AttributeValue::Null(true)),
            bytes().prop_map(AttributeValue::B),
            collection::vec(any::<String>(), 1..4).prop_map(AttributeValue::Ss),
            collection::vec(number, 1..4).prop_map(AttributeValue::Ns),
            collection::vec(bytes(), 1..4).prop_map(AttributeValue::Bs),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                collection::vec(inner.clone(), 0..4).prop_map(AttributeValue::L),
                collection::hash_map(any::<String>(), inner, 0..4).prop_map(AttributeValue::M),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_item_survives_as_text(item in collection::hash_map(any::<String>(), any_attribute(), 0..6)) {
            let line = serde_json::to_string(&to_json(&item).unwrap()).unwrap();
            prop_assert!(!line.contains('\n'));
            let back = from_json(serde_json::from_str(&line).unwrap()).unwrap();
            prop_assert_eq!(back, item);
        }
    }

    #[test]
    fn what_is_no_item_is_told_with_its_attribute() {
        for (garbled, expected) in [
            (json!([]), "an item must be an object"),
            (json!({"a": 1}), "attribute `a`: it must be an object with one of"),
            (json!({"a": {}}), "attribute `a`: it must be an object with one of"),
            (json!({"a": {"S": "x", "N": "1"}}), "attribute `a`: it must be an object with one of"),
            (json!({"a": {"N": 1}}), "attribute `a`: `N` cannot be 1"),
            (json!({"a": {"N": "NaN"}}), "attribute `a`: `NaN` is no number"),
            (json!({"a": {"N": "0x10"}}), "attribute `a`: `0x10` is no number"),
            (json!({"a": {"B": "%"}}), "attribute `a`: no base64"),
            (json!({"a": {"SS": []}}), "attribute `a`: a set cannot be empty"),
            (json!({"a": {"NS": ["x"]}}), "attribute `a`: `x` is no number"),
            (json!({"a": {"M": {"b": {"X": 1}}}}), "attribute `a`: attribute `b`: `X` cannot be 1"),
        ] {
            let error = from_json(garbled.clone()).unwrap_err();
            assert!(error.starts_with(expected), "{garbled}: {error}");
        }
    }
}

//! As much of JSON Schema as the API's document uses.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

/// Whether a body is as a schema of the document says: types, required properties, values of an
/// enumeration, and no property that is not documented.
pub(crate) fn check(document: &Value, schema: &Value, body: &Value) -> Result<()> {
    at(document, schema, body, "")
}

/// A schema without references, and with all that it is made of in one.
fn flat(document: &Value, schema: &Value) -> Result<Value> {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.strip_prefix('#').context("a reference elsewhere")?;
        let target = document.pointer(pointer).with_context(|| format!("no {reference}"))?;
        return flat(document, target);
    }
    let Some(parts) = schema["allOf"].as_array() else { return Ok(schema.clone()) };
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for part in parts {
        let part = flat(document, part)?;
        properties.extend(part["properties"].as_object().cloned().unwrap_or_default());
        required.extend(part["required"].as_array().cloned().unwrap_or_default());
    }
    Ok(json!({ "type": "object", "properties": properties, "required": required }))
}

fn at(document: &Value, schema: &Value, body: &Value, place: &str) -> Result<()> {
    let schema = &flat(document, schema)?;
    if let Some(choices) = schema["anyOf"].as_array() {
        let fits = choices.iter().any(|choice| at(document, choice, body, place).is_ok());
        ensure!(fits, "{place}: {body} is none of {choices:?}");
        return Ok(());
    }
    if let Some(values) = schema["enum"].as_array() {
        ensure!(values.contains(body), "{place}: {body} is not among {values:?}");
    }
    check_type(&schema["type"], body, place)?;
    if let Some(items) = body.as_array() {
        for (i, item) in items.iter().enumerate() {
            at(document, &schema["items"], item, &format!("{place}[{i}]"))?;
        }
    }
    if let Some(object) = body.as_object() {
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap_or_default();
            ensure!(object.contains_key(name), "{place}: {name} is missing in {body}");
        }
        for (name, value) in object {
            let place = format!("{place}.{name}");
            match (schema["properties"].get(name), &schema["additionalProperties"]) {
                (Some(schema), _) => at(document, schema, value, &place)?,
                (None, Value::Object(_)) => {
                    at(document, &schema["additionalProperties"], value, &place)?
                }
                (None, _) if schema["properties"].is_object() => bail!("{place} is not documented"),
                (None, _) => {}
            }
        }
    }
    Ok(())
}

fn check_type(kinds: &Value, body: &Value, place: &str) -> Result<()> {
    let fits = |kind: &Value| match kind.as_str() {
        Some("null") => body.is_null(),
        Some("boolean") => body.is_boolean(),
        Some("integer") => body.is_u64() || body.is_i64(),
        Some("number") => body.is_number(),
        Some("string") => body.is_string(),
        Some("array") => body.is_array(),
        Some("object") => body.is_object(),
        _ => false,
    };
    let is_one = match kinds {
        Value::Null => true,
        Value::Array(kinds) => kinds.iter().any(fits),
        kind => fits(kind),
    };
    ensure!(is_one, "{place}: {body} is not of type {kinds}");
    Ok(())
}

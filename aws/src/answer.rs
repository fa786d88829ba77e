//! Answers, which are XML.

use roxmltree::{Document, Node, ParsingOptions};

use crate::error::CallError;

/// An answer for 100 instances has some 5,000 nodes.
const MAX_NODES: u32 = 100_000;

pub(crate) fn parse(body: &str) -> Result<Document<'_>, CallError> {
    let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    Document::parse_with_options(body, options).map_err(|e| CallError::Garbled(e.to_string()))
}

/// The child of that name; namespaces differ by the API's version and say nothing.
pub(crate) fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.has_tag_name(name))
}

pub(crate) fn text<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    child(node, name)?.text().map(str::trim).filter(|text| !text.is_empty())
}

/// Code and message of an answer that says what is wrong.
pub(crate) fn error(body: &str) -> Option<(String, String)> {
    let document = parse(body).ok()?;
    let error = document.descendants().find(|node| node.has_tag_name("Error"))?;
    let message = text(error, "Message").unwrap_or_default();
    Some((text(error, "Code")?.to_owned(), message.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn both_services_shapes_of_errors_are_read() {
        let auto_scaling = r#"<ErrorResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/">
            <Error><Type>Sender</Type><Code>ValidationError</Code><Message>wrong &amp; odd</Message></Error>
            <RequestId>1</RequestId></ErrorResponse>"#;
        let ec2 = r#"<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error>
            <Code>RequestLimitExceeded</Code><Message>Request limit exceeded.</Message></Error></Errors>
            <RequestID>1</RequestID></Response>"#;
        let told = |body| error(body).unwrap();
        assert_eq!(told(auto_scaling), ("ValidationError".to_owned(), "wrong & odd".to_owned()));
        assert_eq!(told(ec2).0, "RequestLimitExceeded");
        for none in ["", "<html>", "{}", "<Error/>", "<a><Error><Message>m</Message></Error></a>"] {
            assert_eq!(error(none), None, "{none}");
        }
    }

    #[test]
    fn hostile_documents_are_refused() {
        let deep = "<a>".repeat(200_000);
        let many = format!("<a>{}</a>", "<b/>".repeat(MAX_NODES as usize));
        let laughs = "<!DOCTYPE a [<!ENTITY b \"&c;&c;\"><!ENTITY c \"x\">]><a>&b;</a>";
        for body in [deep.as_str(), &many, laughs, "<a><b></a></b>", "<a>", "\0", ""] {
            assert!(parse(body).is_err(), "{}", &body[..body.len().min(40)]);
        }
    }
}

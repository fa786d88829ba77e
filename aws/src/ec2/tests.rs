use super::*;

const PAGE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<DescribeInstanceStatusResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>3be1508e-c444-4fef-89cc-0b1223c4f02f</requestId>
  <instanceStatusSet>
    <item>
      <instanceId>i-0123456789abcdef0</instanceId>
      <instanceState><code>16</code><name>running</name></instanceState>
      <systemStatus><status>impaired</status><details><item>
        <name>reachability</name><status>failed</status>
        <impairedSince>2026-05-04T08:22:00.000Z</impairedSince>
      </item></details></systemStatus>
      <instanceStatus><status>ok</status><details><item>
        <name>reachability</name><status>passed</status>
      </item></details></instanceStatus>
    </item>
    <item>
      <instanceId>i-0123456789abcdef1</instanceId>
      <instanceState><code>0</code><name>pending</name></instanceState>
    </item>
    <item><availabilityZone>us-east-1a</availabilityZone></item>
  </instanceStatusSet>
  <nextToken>more</nextToken>
</DescribeInstanceStatusResponse>"#;

#[test]
fn a_page_is_read() {
    let Page { statuses, next } = read(PAGE).unwrap();
    assert_eq!(next.as_deref(), Some("more"));
    assert_eq!(statuses.len(), 2, "an item without an id is nobody's: {statuses:?}");
    let trouble = |id: &str| statuses[id].trouble();
    assert_eq!(
        trouble("i-0123456789abcdef0").as_deref(),
        Some("EC2: system status impaired (reachability failed)")
    );
    assert_eq!(statuses["i-0123456789abcdef1"].state, "pending");
    assert_eq!(trouble("i-0123456789abcdef1"), None);
}

#[test]
fn an_answer_about_something_else_is_no_empty_page() {
    for body in
        ["<html/>", "<DescribeInstanceStatusResponse/>", "", "no XML", &PAGE[..PAGE.len() - 5]]
    {
        assert!(matches!(read(body), Err(CallError::Garbled(_))), "{body}");
    }
    let empty = "<R><instanceStatusSet/><nextToken/></R>";
    assert_eq!(read(empty).unwrap(), Page { statuses: BTreeMap::new(), next: None });
}

#[test]
fn what_is_wrong_is_told_and_what_is_not_known_is_nothing() {
    for (state, system, instance, expected) in [
        ("running", "ok", "ok", None),
        ("running", "initializing", "initializing", None),
        ("running", "insufficient-data", "insufficient-data", None),
        ("pending", "not-applicable", "not-applicable", None),
        ("", "", "", None),
        ("running", "impaired", "ok", Some("EC2: system status impaired")),
        ("running", "ok", "impaired", Some("EC2: instance status impaired")),
        (
            "running",
            "impaired",
            "impaired",
            Some("EC2: system status impaired, instance status impaired"),
        ),
        ("stopped", "not-applicable", "not-applicable", Some("EC2: the instance is stopped")),
        ("stopping", "ok", "ok", Some("EC2: the instance is stopping")),
        ("shutting-down", "ok", "ok", Some("EC2: the instance is shutting-down")),
        ("terminated", "", "", Some("EC2: the instance is terminated")),
    ] {
        let check = |status: &str| Check { status: status.to_owned(), details: Vec::new() };
        let (system, instance) = (check(system), check(instance));
        let status = InstanceStatus { state: state.to_owned(), system, instance };
        assert_eq!(status.trouble().as_deref(), expected, "{status:?}");
    }
}

#[test]
fn ids_of_other_clouds_are_told_from_those_of_ec2() {
    for id in ["i-01234567", "i-0123456789abcdef0"] {
        assert!(is_instance_id(id), "{id}");
    }
    for id in
        ["", "i-", "i-0abc", "gpu-1", "i-0123456789abcdeg0", "i-0123456789ABCDEF0", "x-01234567"]
    {
        assert!(!is_instance_id(id), "{id}");
    }
}

#[test]
fn a_message_names_whole_ids() {
    let message = "The instance IDs 'i-01234567, i-0123456789abcdef0' do not exist";
    assert!(names(message, "i-01234567") && names(message, "i-0123456789abcdef0"));
    assert!(!names(message, "i-0123456") && !names_any(message, &["i-89abcdef"]));
}

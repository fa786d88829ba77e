//! The CloudFormation template beside what the programs need: tables, keys, and who may write what.
//! `cargo xtask test` also has `cfn-lint` look at it.

use std::collections::BTreeMap;

use mrgc_store::table_definitions;
use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value, json};

const TEMPLATE: &str = include_str!("../../../../deploy/cloudformation/state.yaml");
const REGIONS: [&str; 3] = ["us-east-1", "us-east-2", "us-west-2"];

/// YAML as JSON, in which `!Ref x` is `{"!Ref": "x"}`.
fn as_json(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Value(Scalar::String(text)) => json!(text),
        Yaml::Value(Scalar::Boolean(flag)) => json!(flag),
        Yaml::Value(Scalar::Integer(number)) => json!(number),
        Yaml::Value(Scalar::FloatingPoint(number)) => json!(number.into_inner()),
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Sequence(values) => values.iter().map(as_json).collect(),
        Yaml::Mapping(fields) => fields
            .iter()
            .map(|(name, value)| (name.as_str().unwrap().to_owned(), as_json(value)))
            .collect::<Map<_, _>>()
            .into(),
        Yaml::Tagged(tag, node) => json!({format!("!{}", tag.suffix): as_json(node)}),
        other => panic!("the template has a node of another kind: {other:?}"),
    }
}

/// All resources, with `Fn::ForEach` carried out as AWS does.
fn resources() -> BTreeMap<String, Value> {
    let documents = Yaml::load_from_str(TEMPLATE).unwrap();
    let template = as_json(&documents[0]);
    let mut resources = BTreeMap::new();
    for (name, resource) in template["Resources"].as_object().unwrap() {
        if !name.starts_with("Fn::ForEach::") {
            resources.insert(name.clone(), resource.clone());
            continue;
        }
        let variable = resource[0].as_str().unwrap();
        for value in resource[1].as_array().unwrap() {
            let value = value.as_str().unwrap();
            let bare: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
            let text = resource[2].to_string();
            let text = text.replace(&format!("${{{variable}}}"), value);
            let made: Map<String, Value> =
                serde_json::from_str(&text.replace(&format!("&{{{variable}}}"), &bare)).unwrap();
            resources.extend(made);
        }
    }
    assert!(!json!(resources).to_string().contains("&{"), "a loop's variable was left");
    resources
}

fn of_type<'a>(resources: &'a BTreeMap<String, Value>, kind: &str) -> Vec<&'a Value> {
    resources.values().filter(|resource| resource["Type"] == kind).collect()
}

/// A replica, whether it is always there or on a condition.
fn replica(replica: &Value) -> &Value {
    replica.get("!If").map_or(replica, |choice| &choice[1])
}

#[test]
fn the_tables_are_those_of_the_programs() {
    let resources = resources();
    let tables = of_type(&resources, "AWS::DynamoDB::GlobalTable");
    let named: BTreeMap<&str, &Value> = tables
        .iter()
        .map(|table| {
            let name = table["Properties"]["TableName"]["!Sub"].as_str().unwrap();
            (name.strip_prefix("${TablePrefix}-").unwrap(), &table["Properties"])
        })
        .collect();
    assert_eq!(named.len(), tables.len());
    let mut expected: Vec<&str> = table_definitions().map(|definition| definition.name).collect();
    expected.sort_unstable();
    assert_eq!(named.keys().copied().collect::<Vec<_>>(), expected);

    for definition in table_definitions() {
        let table = named[definition.name];
        let (pk, sk) = (definition.partition_key, definition.sort_key);
        let key = json!([
            {"AttributeName": pk, "KeyType": "HASH"}, {"AttributeName": sk, "KeyType": "RANGE"},
        ]);
        let attributes = json!([
            {"AttributeName": pk, "AttributeType": "S"}, {"AttributeName": sk, "AttributeType": "S"},
        ]);
        assert_eq!(table["KeySchema"], key, "{definition:?}");
        assert_eq!(table["AttributeDefinitions"], attributes, "{definition:?}");
        assert_eq!(table["BillingMode"], "PAY_PER_REQUEST", "{definition:?}");
        let on = |attribute| json!({"AttributeName": attribute, "Enabled": true});
        let time_to_live = match definition.ttl_attribute {
            None => Value::Null,
            // A table that is strongly consistent across regions cannot have one.
            Some(attribute) if definition.name == "control" => {
                json!({"!If": ["StrongControl", {"!Ref": "AWS::NoValue"}, on(attribute)]})
            }
            Some(attribute) => on(attribute),
        };
        let found = table.get("TimeToLiveSpecification").cloned().unwrap_or_default();
        assert_eq!(found, time_to_live, "{definition:?}");
    }
}

#[test]
fn every_replica_is_backed_up_encrypted_and_protected() {
    let resources = resources();
    for table in of_type(&resources, "AWS::DynamoDB::GlobalTable") {
        let properties = &table["Properties"];
        assert_eq!(table["DeletionPolicy"], "Retain");
        assert_eq!(properties["SSESpecification"], json!({"SSEEnabled": true, "SSEType": "KMS"}));
        assert_eq!(properties["StreamSpecification"]["StreamViewType"], "NEW_AND_OLD_IMAGES");
        let replicas: Vec<&Value> =
            properties["Replicas"].as_array().unwrap().iter().map(replica).collect();
        let regions: Vec<&str> = replicas.iter().map(|r| r["Region"].as_str().unwrap()).collect();
        assert_eq!(regions, REGIONS);
        for replica in replicas {
            let (region, text) = (replica["Region"].as_str().unwrap(), replica.to_string());
            assert_eq!(replica["DeletionProtectionEnabled"], true, "{text}");
            let recovery = &replica["PointInTimeRecoverySpecification"];
            assert_eq!(recovery["PointInTimeRecoveryEnabled"], true, "{text}");
            let table_name = properties["TableName"]["!Sub"].as_str().unwrap();
            let arn = format!(":dynamodb:{region}:${{AWS::AccountId}}:table/{table_name}\"");
            assert!(text.contains(&arn), "the policy is not of this replica: {text}");
            assert!(text.contains("\"aws:SecureTransport\":\"false\""), "{text}");
        }
    }
}

/// As IAM's `StringLike`.
fn is_like(text: &str, pattern: &str) -> bool {
    match (text.chars().next(), pattern.chars().next()) {
        (_, Some('*')) => {
            is_like(text, &pattern[1..])
                || text.chars().next().is_some_and(|c| is_like(&text[c.len_utf8()..], pattern))
        }
        (None, None) => true,
        (Some(t), Some(p)) if p == '?' || p == t => {
            is_like(&text[t.len_utf8()..], &pattern[p.len_utf8()..])
        }
        _ => false,
    }
}

/// Whether the policy allows an action on an item, by its statements' actions, resources and leading keys.
fn allows(policy: &Value, action: &str, region: &str, table: &str, pk: &str) -> bool {
    let list = |value: &Value| match value {
        Value::Array(values) => values.clone(),
        value => vec![value.clone()],
    };
    let text = |value: &Value| {
        value.get("!Sub").unwrap_or(value).as_str().unwrap().replace("${AWS::", "${")
    };
    let arn = format!(
        "arn:${{Partition}}:dynamodb:{region}:${{AccountId}}:table/${{TablePrefix}}-{table}"
    );
    statements(policy).filter(|statement| statement["Effect"] == "Allow").any(|statement| {
        let keys = statement.pointer("/Condition/ForAllValues:StringLike/dynamodb:LeadingKeys");
        let key_fits = keys.is_none_or(|keys| list(keys).iter().any(|key| is_like(pk, &text(key))));
        list(&statement["Action"]).iter().any(|allowed| is_like(action, &text(allowed)))
            && list(&statement["Resource"]).iter().any(|allowed| is_like(&arn, &text(allowed)))
            && key_fits
    })
}

/// A policy's statements, those on a condition included.
fn statements(policy: &Value) -> impl Iterator<Item = &Value> {
    let statements = policy["Properties"]["PolicyDocument"]["Statement"].as_array().unwrap();
    statements.iter().map(|statement| statement.get("!If").map_or(statement, |choice| &choice[1]))
}

const WRITES: [&str; 5] = [
    "dynamodb:PutItem",
    "dynamodb:UpdateItem",
    "dynamodb:DeleteItem",
    "dynamodb:BatchWriteItem",
    "dynamodb:DeleteTable",
];

#[test]
fn an_agent_writes_its_own_shards_and_nothing_else() {
    let resources = resources();
    let agent = &resources["AgentPolicyuseast1"];
    for table in ["gpu-instances", "routing-state"] {
        for shard in ["0", "15", "255"] {
            let pk = format!("us-east-1#{shard}");
            for action in ["GetItem", "PutItem", "UpdateItem", "Query"] {
                let action = format!("dynamodb:{action}");
                assert!(allows(agent, &action, "us-east-1", table, &pk), "{action} {table} {pk}");
            }
            // Reads turn to another replica when the region's own is gone; writes do not.
            assert!(allows(agent, "dynamodb:Query", "us-west-2", table, &pk));
            assert!(!allows(agent, "dynamodb:PutItem", "us-west-2", table, &pk));
        }
        for pk in
            ["desired#us-east-1#3", "us-east-2#3", "us-east-1", "us-east-1#1234", "x#us-east-1#1"]
        {
            for action in WRITES {
                assert!(!allows(agent, action, "us-east-1", table, pk), "{action} {table} {pk}");
            }
        }
        // What is wanted of an instance is read by a query, at a replica where the region's own is gone.
        for region in ["us-east-1", "us-west-2"] {
            let reads = |pk| allows(agent, "dynamodb:Query", region, table, pk);
            assert!(reads("desired#us-east-1#3") && !reads("desired#us-west-2#3"), "{region}");
        }
    }
    assert!(allows(agent, "dynamodb:PutItem", "us-east-1", "cleanup-validation", "i-1"));
    for action in ["dynamodb:UpdateItem", "dynamodb:DeleteItem"] {
        assert!(!allows(agent, action, "us-east-1", "cleanup-validation", "i-1"), "{action}");
    }
    assert!(allows(agent, "dynamodb:GetItem", "us-east-1", "regions", "REGIONS"));
    for table in ["autoscaling-state", "regions", "policies", "control"] {
        for action in WRITES {
            assert!(!allows(agent, action, "us-east-1", table, "REGIONS"), "{action} {table}");
        }
    }
    for definition in table_definitions() {
        for action in ["dynamodb:Scan", "dynamodb:DeleteItem", "dynamodb:DescribeStream"] {
            assert!(
                !allows(agent, action, "us-east-1", definition.name, "us-east-1#1"),
                "{action}"
            );
        }
    }
}

/// Only where the template was given a group, and only those of its region.
#[test]
fn an_agent_completes_lifecycle_actions_of_the_named_groups() {
    let resources = resources();
    for (name, policy) in &resources {
        let text = policy.to_string();
        let Some(home) = REGIONS
            .iter()
            .find(|region| *name == format!("AgentPolicy{}", region.replace('-', "")))
        else {
            assert!(!text.contains("autoscaling:CompleteLifecycleAction"), "{name}");
            continue;
        };
        let of_service: Vec<_> =
            statements(policy).filter(|s| s.to_string().contains("autoscaling:")).collect();
        let groups = format!(
            "arn:${{AWS::Partition}}:autoscaling:{home}:${{AWS::AccountId}}:autoScalingGroup:*:\
             autoScalingGroupName/${{AutoScalingGroup}}"
        );
        let expected = json!({
            "Sid": "CompleteLifecycleActions",
            "Effect": "Allow",
            "Action": "autoscaling:CompleteLifecycleAction",
            "Resource": {"!Sub": groups},
            "Condition": {"Bool": {"aws:SecureTransport": "true"}},
        });
        assert_eq!(of_service, [&expected], "{name}");
        assert!(text.contains(r#"{"!If":["HasAutoScalingGroup",{"#), "{name}");
    }
}

/// Only where the template was given a group; EC2's status, which EC2 cannot restrict, always.
#[test]
fn only_routers_read_instance_status_and_call_instances_unhealthy() {
    let resources = resources();
    for (name, policy) in resources.iter().filter(|(name, _)| *name != "RouterPolicy") {
        let text = policy.to_string();
        assert!(!text.contains("\"ec2:") && !text.contains("SetInstanceHealth"), "{name}");
    }
    let router = &resources["RouterPolicy"];
    let groups = "arn:${AWS::Partition}:autoscaling:*:${AWS::AccountId}:autoScalingGroup:*:\
                  autoScalingGroupName/${AutoScalingGroup}";
    let expected = [
        ("ec2:DescribeInstanceStatus", json!("*")),
        ("autoscaling:SetInstanceHealth", json!({"!Sub": groups})),
    ];
    for (action, resource) in expected {
        let of_action: Vec<_> = statements(router).filter(|s| s["Action"] == action).collect();
        assert_eq!(of_action.len(), 1, "{action}");
        assert_eq!(
            (&of_action[0]["Effect"], &of_action[0]["Resource"]),
            (&json!("Allow"), &resource)
        );
        let tls = json!({"Bool": {"aws:SecureTransport": "true"}});
        assert_eq!(of_action[0]["Condition"], tls, "{action}");
    }
    assert!(router.to_string().contains(r#"{"!If":["HasAutoScalingGroup",{"#));
}

#[test]
fn routers_read_all_and_operators_do_what_the_command_does() {
    let resources = resources();
    let (router, operator) = (&resources["RouterPolicy"], &resources["OperatorPolicy"]);
    for table in table_definitions().map(|definition| definition.name) {
        for action in ["GetItem", "Query", "DescribeTable"] {
            assert!(
                allows(router, &format!("dynamodb:{action}"), "us-west-2", table, "x"),
                "{action}"
            );
        }
        let writes = allows(router, "dynamodb:PutItem", "us-west-2", table, "x");
        assert_eq!(writes, table != "cleanup-validation", "{table}");
        assert!(!allows(router, "dynamodb:Scan", "us-west-2", table, "x"));
        let deletes = |pk| allows(router, "dynamodb:DeleteItem", "us-west-2", table, pk);
        assert!(!deletes("us-west-2#1"), "{table}");
        assert_eq!(deletes("desired#us-west-2#1"), table == "gpu-instances", "{table}");
        for action in [
            "DescribeTable",
            "DescribeTimeToLive",
            "CreateTable",
            "UpdateTimeToLive",
            "UpdateContinuousBackups",
            "Scan",
            "BatchWriteItem",
            "PutItem",
        ] {
            assert!(
                allows(operator, &format!("dynamodb:{action}"), "us-east-1", table, "x"),
                "{action}"
            );
        }
        assert!(!allows(operator, "dynamodb:DeleteTable", "us-east-1", table, "x"));
    }
}

#[test]
fn nobody_is_served_without_tls() {
    let resources = resources();
    let policies = of_type(&resources, "AWS::IAM::ManagedPolicy");
    assert_eq!(policies.len(), 5);
    for policy in policies {
        let refuses = statements(policy).any(|statement| {
            statement["Effect"] == "Deny"
                && statement["Action"] == "dynamodb:*"
                && statement["Resource"] == "*"
                && statement["Condition"] == json!({"Bool": {"aws:SecureTransport": "false"}})
        });
        assert!(refuses, "{policy}");
    }
}

#[test]
fn every_table_has_its_alarms() {
    let resources = resources();
    let alarms = json!(of_type(&resources, "AWS::CloudWatch::Alarm")).to_string();
    assert!(alarms.contains("\"MetricName\":\"UserErrors\""));
    for table in table_definitions().map(|definition| definition.name) {
        let mut names = vec!["system-errors", "read-units", "write-units"];
        if table != "control" {
            names.extend(["latency-to-us-east-1", "latency-to-us-east-2", "latency-to-us-west-2"]);
        }
        for name in names {
            let name = format!("\"AlarmName\":{{\"!Sub\":\"${{TablePrefix}}-{table}-{name}\"}}");
            assert!(alarms.contains(&name), "{name}");
        }
    }
}

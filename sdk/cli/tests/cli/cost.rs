//! `mrgc state cost`, and the table of it in the documentation.

use std::fs;

use serde_json::Value;

use crate::support::mrgc;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cost.md");
const BEGIN: &str = "<!-- made by `mrgc state cost --markdown` -->\n";
const END: &str = "<!-- end -->";

/// `BLESS=1 cargo test -p mrgc-cli cost` writes the table anew.
#[tokio::test]
async fn the_documentation_has_the_table_as_it_is_computed() {
    let made = mrgc(&["state", "cost", "--markdown"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}{}{END}{after}", made.out);
    if std::env::var_os("BLESS").is_some() {
        fs::write(DOCUMENT, &expected).unwrap();
    }
    assert_eq!(fs::read_to_string(DOCUMENT).unwrap(), expected);
}

#[tokio::test]
async fn one_fleet_is_one_row_whose_parts_add_up() {
    let arguments = [
        "state",
        "cost",
        "--instances",
        "1000",
        "--interval",
        "10",
        "--mode",
        "adaptive",
        "--adaptive-share",
        "0.5",
        "--json",
    ];
    let told: Value = serde_json::from_str(&mrgc(&arguments).await.out).unwrap();
    let rows = told["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1);
    let month = &rows[0]["month"];
    // 1,000 instances, 262,800 intervals of a month of 730 hours, half of them written.
    assert_eq!(month["writes"], 131_400_000.0);
    // And in each of three regions a record of each every five seconds, and two leases every two.
    let standing = 2_628_000.0 * (9.0 / 5.0 + 6.0 / 2.0);
    assert_eq!(month["write_units"], 3.0 * (131_400_000.0 + standing));
    let dollars = |name: &str| month[name].as_f64().unwrap();
    let parts = ["write_dollars", "read_dollars", "transfer_dollars", "storage_dollars"];
    let sum: f64 = parts.into_iter().map(dollars).sum();
    assert!((dollars("total_dollars") - sum).abs() < 1e-6);
    assert!((dollars("write_dollars") - 3.0 * (131.4 + standing / 1e6) * 0.625).abs() < 1e-6);
}

#[tokio::test]
async fn lists_make_every_combination() {
    let arguments =
        ["state", "cost", "--instances", "5,6", "--interval", "1,2.5", "--mode", "fixed"];
    let said = mrgc(&arguments).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let rows = said.out.lines().skip(1).take_while(|line| !line.is_empty());
    let starts: Vec<Vec<&str>> =
        rows.map(|line| line.split_whitespace().take(3).collect()).collect();
    assert_eq!(
        starts,
        [["5", "1", "fixed"], ["5", "2.5", "fixed"], ["6", "1", "fixed"], ["6", "2.5", "fixed"]]
    );
    assert!(said.out.contains("prices of us-east-1 as of "), "{}", said.out);
}

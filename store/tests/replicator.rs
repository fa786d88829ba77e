//! A stand-in for the replication of global tables: two engines, each a region, and between them what
//! carries writes over late and out of order.
//!
//! It does as DynamoDB's multi-region eventual consistency does: a write is whole items, and the later of
//! two writes of one item wins in every region, by the time that it was seen. It polls, so it may miss
//! versions that were overwritten between two looks; the service sends every version, but promises no
//! more than the last one.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::{Client, types::AttributeValue};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time,
};

pub(crate) type Item = HashMap<String, AttributeValue>;

/// Table, partition key, sort key.
type Place = (String, String, String);

/// Between two looks at both regions.
const LOOK: Duration = Duration::from_millis(5);

/// A side's items, where they are.
type Items = BTreeMap<Place, Item>;

#[derive(Default)]
struct Side {
    /// As they were at the last look, or as they were last carried here.
    known: Items,
    /// When the version here was seen first, wherever that was.
    stamps: HashMap<Place, Instant>,
}

/// A version on its way: `None` is a deletion.
struct Parcel {
    to: usize,
    place: Place,
    item: Option<Item>,
    seen: Instant,
    arrives: Instant,
}

/// Carries writes between two regions until it is stopped.
pub(crate) struct Replicator {
    quiet: mpsc::Sender<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Replicator {
    /// Between the clients' tables of these names; a version takes up to `longest` to arrive.
    pub(crate) fn start(
        clients: [Client; 2],
        tables: Vec<String>,
        longest: Duration,
        random: fastrand::Rng,
    ) -> Self {
        let (quiet, asked) = mpsc::channel(1);
        let carrier = Carrier {
            clients,
            tables,
            longest,
            random,
            sides: [Side::default(), Side::default()],
            road: Vec::new(),
            carried: 0,
        };
        Self { quiet, task: tokio::spawn(carrier.run(asked)) }
    }

    /// Waits until nothing is under way and a look finds nothing new.
    pub(crate) async fn quiet(&self) {
        let (answer, answered) = oneshot::channel();
        self.quiet.send(answer).await.expect("it runs");
        answered.await.expect("it runs");
    }

    pub(crate) fn stop(self) {
        self.task.abort();
    }
}

struct Carrier {
    clients: [Client; 2],
    tables: Vec<String>,
    longest: Duration,
    random: fastrand::Rng,
    sides: [Side; 2],
    road: Vec<Parcel>,
    carried: u64,
}

impl Carrier {
    async fn run(mut self, mut asked: mpsc::Receiver<oneshot::Sender<()>>) {
        let mut waiting: Option<oneshot::Sender<()>> = None;
        loop {
            let mut news = self.look(0).await;
            news |= self.look(1).await;
            news |= self.deliver().await;
            if !news
                && self.road.is_empty()
                && let Some(answer) = waiting.take()
            {
                eprintln!("replicator: {} versions carried", self.carried);
                let _ = answer.send(());
            }
            waiting = waiting.or_else(|| asked.try_recv().ok());
            time::sleep(LOOK).await;
        }
    }

    /// Takes what changed on a side onto the road; whether anything did.
    async fn look(&mut self, side: usize) -> bool {
        let now = scan(&self.clients[side], &self.tables).await;
        let seen = Instant::now();
        let known = std::mem::replace(&mut self.sides[side].known, now.clone());
        let written = now.iter().filter(|(place, item)| known.get(*place) != Some(*item));
        let written = written.map(|(place, item)| (place.clone(), Some(item.clone())));
        let removed = known.keys().filter(|place| !now.contains_key(*place));
        let removed = removed.map(|place| (place.clone(), None));
        let changes: Vec<_> = written.chain(removed).collect();
        for (place, item) in &changes {
            self.sides[side].stamps.insert(place.clone(), seen);
            let arrives = seen + self.longest.mul_f64(self.random.f64());
            let (place, item) = (place.clone(), item.clone());
            self.road.push(Parcel { to: 1 - side, place, item, seen, arrives });
        }
        !changes.is_empty()
    }

    /// Delivers what has arrived, in any order; whether anything was written.
    async fn deliver(&mut self) -> bool {
        let now = Instant::now();
        let (mut arrived, road) =
            std::mem::take(&mut self.road).into_iter().partition::<Vec<_>, _>(|p| p.arrives <= now);
        self.road = road;
        self.random.shuffle(&mut arrived);
        let mut news = false;
        for parcel in arrived {
            let Parcel { to, place, item, seen, .. } = parcel;
            let side = &mut self.sides[to];
            if side.stamps.get(&place).is_some_and(|stamp| *stamp > seen) {
                continue;
            }
            // A write since the last look is later than this version, which then loses.
            if apply(&self.clients[to], &place, side.known.get(&place), item.clone()).await {
                self.carried += 1;
                news = true;
                side.stamps.insert(place.clone(), seen);
                match item {
                    Some(item) => side.known.insert(place, item),
                    None => side.known.remove(&place),
                };
            }
        }
        news
    }
}

/// Puts or deletes an item, if what is there is still `known`.
async fn apply(client: &Client, place: &Place, known: Option<&Item>, item: Option<Item>) -> bool {
    let (table, pk, sk) = place;
    let mut names = HashMap::new();
    let mut values = HashMap::new();
    let condition = match known {
        None => {
            names.insert("#pk".to_owned(), "pk".to_owned());
            "attribute_not_exists(#pk)".to_owned()
        }
        Some(known) => {
            let mut terms = Vec::new();
            for (n, (name, value)) in known.iter().enumerate() {
                names.insert(format!("#a{n}"), name.clone());
                values.insert(format!(":a{n}"), value.clone());
                terms.push(format!("#a{n} = :a{n}"));
            }
            terms.join(" AND ")
        }
    };
    let values = Some(values).filter(|values| !values.is_empty());
    let refused = match item {
        Some(item) => {
            let put = client.put_item().table_name(table).set_item(Some(item));
            let put = put.condition_expression(condition);
            let put = put.set_expression_attribute_names(Some(names));
            let sent = put.set_expression_attribute_values(values).send().await;
            sent.map_err(|error| error.into_service_error())
                .map_or_else(|error| Some(error.is_conditional_check_failed_exception()), |_| None)
        }
        None => {
            let delete = client.delete_item().table_name(table);
            let delete = delete
                .key("pk", AttributeValue::S(pk.clone()))
                .key("sk", AttributeValue::S(sk.clone()))
                .condition_expression(condition);
            let delete = delete.set_expression_attribute_names(Some(names));
            let sent = delete.set_expression_attribute_values(values).send().await;
            sent.map_err(|error| error.into_service_error())
                .map_or_else(|error| Some(error.is_conditional_check_failed_exception()), |_| None)
        }
    };
    assert_ne!(refused, Some(false), "the engine takes writes of the replicator");
    refused.is_none()
}

/// All items of some tables.
pub(crate) async fn scan(client: &Client, tables: &[String]) -> Items {
    let mut items = Items::new();
    for table in tables {
        let mut after = None;
        loop {
            let request = client.scan().table_name(table).set_exclusive_start_key(after);
            let page = request.send().await.unwrap();
            for item in page.items.unwrap_or_default() {
                let text = |name: &str| item[name].as_s().unwrap().clone();
                items.insert((table.clone(), text("pk"), text("sk")), item);
            }
            after = page.last_evaluated_key.filter(|key| !key.is_empty());
            if after.is_none() {
                break;
            }
        }
    }
    items
}

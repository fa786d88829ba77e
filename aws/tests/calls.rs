//! Calls over real HTTP, of a double that answers as it is told.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, future},
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use http_body::Frame;
use mrgc_aws::{AutoScaling, CallError, Ec2, LifecycleAction, Session, Told};
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(20);

const A: &str = "i-0123456789abcdef0";
const B: &str = "i-0123456789abcdef1";

#[derive(Clone, Debug)]
enum Script {
    Says(u16, String),
    /// A body without an end.
    Endless,
    /// Nothing at all.
    Silent,
}

struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'<'; 16 << 10])))))
    }
}

/// A service of AWS: it says what it is told to, one after the other, and keeps what it was asked.
#[derive(Debug, Default)]
struct Double {
    script: Mutex<VecDeque<Script>>,
    asked: Mutex<Vec<(String, String)>>,
}

impl Double {
    async fn start(script: impl IntoIterator<Item = Script>) -> (Arc<Self>, String) {
        let double = Arc::new(Self {
            script: Mutex::new(script.into_iter().collect()),
            asked: Mutex::default(),
        });
        let service = Router::new().route("/", post(answer)).with_state(double.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        (double, endpoint)
    }

    /// The bodies it was sent; each was signed.
    fn bodies(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        for (authorization, body) in &*asked {
            assert!(
                authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKID"),
                "{authorization}"
            );
            assert!(authorization.contains("/us-east-1/"), "{authorization}");
            assert!(authorization.contains("content-type;host;x-amz-date"), "{authorization}");
            assert!(body.starts_with("Action="), "{body}");
        }
        asked.iter().map(|(_, body)| body.clone()).collect()
    }
}

async fn answer(State(double): State<Arc<Double>>, headers: HeaderMap, body: String) -> Response {
    let authorization = headers["authorization"].to_str().unwrap().to_owned();
    double.asked.lock().unwrap().push((authorization, body));
    let next = double.script.lock().unwrap().pop_front();
    match next.unwrap_or_else(|| panic!("more calls than expected")) {
        Script::Says(status, body) => (StatusCode::from_u16(status).unwrap(), body).into_response(),
        Script::Endless => Body::new(Endless).into_response(),
        Script::Silent => std::future::pending().await,
    }
}

/// Counts how often it is asked; each answer lasts as long as it is told.
#[derive(Clone, Debug)]
struct Provider {
    asked: Arc<AtomicU32>,
    lasts: Duration,
}

impl Provider {
    fn new(lasts: Duration) -> Self {
        Self { asked: Arc::default(), lasts }
    }

    fn session(&self) -> Session {
        Session::new_as("us-east-1", SharedCredentialsProvider::new(self.clone()))
    }
}

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let n = self.asked.fetch_add(1, Relaxed);
        let end = SystemTime::now() + self.lasts;
        let credentials = Credentials::new(format!("AKID{n}"), "secret", None, Some(end), "test");
        future::ProvideCredentials::ready(Ok(credentials))
    }
}

fn session() -> Session {
    Provider::new(Duration::from_secs(3_600)).session()
}

fn says(status: u16, body: &str) -> Script {
    Script::Says(status, body.to_owned())
}

fn refuses(status: u16, code: &str, message: &str) -> Script {
    let error = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    Script::Says(status, format!("<Response><Errors>{error}</Errors></Response>"))
}

fn page(ids: &[&str], next: &str) -> Script {
    let item = |id: &&str| {
        format!(
            "<item><instanceId>{id}</instanceId><instanceState><name>running</name></instanceState>\
             <systemStatus><status>ok</status></systemStatus></item>"
        )
    };
    let items: String = ids.iter().map(item).collect();
    says(
        200,
        &format!(
            "<R><instanceStatusSet>{items}</instanceStatusSet><nextToken>{next}</nextToken></R>"
        ),
    )
}

#[tokio::test]
async fn fields_are_sent_as_they_are_meant() {
    let (double, endpoint) = Double::start([says(200, "<R/>"), says(200, "<R/>")]).await;
    let service = AutoScaling::new(&session(), Some(&endpoint), PATIENCE);
    let action = LifecycleAction { group: "gpu & more", hook: "é /", instance: A };
    assert_eq!(service.complete(action).await.unwrap(), Told::Heard);
    assert_eq!(service.set_unhealthy(A).await.unwrap(), Told::Heard);
    assert_eq!(
        double.bodies(),
        [
            format!(
                "Action=CompleteLifecycleAction&Version=2011-01-01&AutoScalingGroupName=gpu+%26+more\
                 &LifecycleHookName=%C3%A9+%2F&InstanceId={A}&LifecycleActionResult=CONTINUE"
            ),
            format!(
                "Action=SetInstanceHealth&Version=2011-01-01&InstanceId={A}&HealthStatus=Unhealthy\
                 &ShouldRespectGracePeriod=false"
            ),
        ]
    );
}

#[tokio::test]
async fn what_is_not_there_any_more_is_no_error() {
    let gone = "No active Lifecycle Action found with instance ID i-1";
    let stranger = "Instance Id not found - No managed instance found for instance ID i-1";
    let (_double, endpoint) = Double::start([
        refuses(400, "ValidationError", gone),
        refuses(400, "ValidationError", stranger),
        refuses(400, "ValidationError", "1 validation error detected"),
    ])
    .await;
    let service = AutoScaling::new(&session(), Some(&endpoint), PATIENCE);
    let action = LifecycleAction { group: "g", hook: "h", instance: A };
    assert_eq!(service.complete(action).await.unwrap(), Told::Nobody);
    assert_eq!(service.set_unhealthy(A).await.unwrap(), Told::Nobody);
    let error = service.set_unhealthy(A).await.unwrap_err().to_string();
    assert!(error.contains("400 ValidationError 1 validation error"), "{error}");
}

#[tokio::test]
async fn throttling_is_waited_out_and_a_refusal_is_final() {
    let (double, endpoint) = Double::start([
        refuses(400, "Throttling", "Rate exceeded"),
        refuses(503, "RequestLimitExceeded", ""),
        says(200, "<R/>"),
        refuses(403, "AccessDenied", "no"),
    ])
    .await;
    let service = AutoScaling::new(&session(), Some(&endpoint), PATIENCE);
    assert_eq!(service.set_unhealthy(A).await.unwrap(), Told::Heard);
    assert_eq!(double.bodies().len(), 3);
    let refused = service.set_unhealthy(A).await.unwrap_err();
    assert!(matches!(refused, CallError::Refused { status: 403, .. }), "{refused}");
    assert_eq!(double.bodies().len(), 4);
}

#[tokio::test]
async fn patience_ends() {
    let always = std::iter::repeat_n(refuses(503, "Unavailable", ""), 100);
    let (_double, endpoint) = Double::start(always).await;
    let service = AutoScaling::new(&session(), Some(&endpoint), Duration::from_millis(300));
    let error = service.set_unhealthy(A).await.unwrap_err();
    assert!(matches!(error, CallError::Later { status: 503, .. }), "{error}");

    let (_double, endpoint) = Double::start([Script::Silent]).await;
    let service = AutoScaling::new(&session(), Some(&endpoint), Duration::from_millis(300));
    let error = service.set_unhealthy(A).await.unwrap_err();
    assert!(matches!(error, CallError::TimedOut(_)), "{error}");

    let nobody =
        AutoScaling::new(&session(), Some("http://127.0.0.1:1"), Duration::from_millis(300));
    let error = nobody.set_unhealthy(A).await.unwrap_err();
    assert!(matches!(error, CallError::Broken(_)), "{error}");
}

#[tokio::test]
async fn a_status_is_read_over_several_pages() {
    let (double, endpoint) = Double::start([page(&[A], "t/1"), page(&[B], "")]).await;
    let ec2 = Ec2::new(&session(), Some(&endpoint), PATIENCE);
    let statuses = ec2.instance_status(&[A, B]).await.unwrap();
    assert_eq!(statuses.keys().map(String::as_str).collect::<Vec<_>>(), [A, B]);
    let question = format!(
        "Action=DescribeInstanceStatus&Version=2016-11-15&IncludeAllInstances=true\
         &InstanceId.1={A}&InstanceId.2={B}"
    );
    assert_eq!(double.bodies(), [question.clone(), format!("{question}&NextToken=t%2F1")]);
    assert!(ec2.instance_status(&[]).await.unwrap().is_empty(), "nobody is asked about nobody");
}

#[tokio::test]
async fn pages_without_an_end_are_given_up() {
    let always = std::iter::repeat_n(page(&[A], "again"), 100);
    let (double, endpoint) = Double::start(always).await;
    let ec2 = Ec2::new(&session(), Some(&endpoint), PATIENCE);
    let error = ec2.instance_status(&[A]).await.unwrap_err();
    assert!(matches!(error, CallError::Garbled(_)), "{error}");
    assert!(double.bodies().len() <= 10, "{}", double.bodies().len());
}

#[tokio::test]
async fn an_instance_that_is_gone_does_not_hide_the_others() {
    let missing = format!("The instance IDs '{A}' do not exist");
    let (double, endpoint) =
        Double::start([refuses(400, "InvalidInstanceID.NotFound", &missing), page(&[B], "")]).await;
    let ec2 = Ec2::new(&session(), Some(&endpoint), PATIENCE);
    let statuses = ec2.instance_status(&[A, B]).await.unwrap();
    assert_eq!(statuses.keys().map(String::as_str).collect::<Vec<_>>(), [B]);
    assert!(!double.bodies()[1].contains(A), "{:?}", double.bodies());

    let other = refuses(400, "InvalidInstanceID.NotFound", "which?");
    let (_double, endpoint) = Double::start([other]).await;
    let ec2 = Ec2::new(&session(), Some(&endpoint), PATIENCE);
    assert!(ec2.instance_status(&[A]).await.is_err(), "it names none of those asked about");
}

#[tokio::test]
async fn garbage_is_no_status() {
    let (_double, endpoint) = Double::start([
        says(200, "<html><body>welcome to the hotel</body>"),
        says(200, "{}"),
        says(200, "<R><instanceStatusSet><item></instanceStatusSet></R>"),
        Script::Endless,
    ])
    .await;
    let ec2 = Ec2::new(&session(), Some(&endpoint), PATIENCE);
    for _ in 0..4 {
        let error = ec2.instance_status(&[A]).await.unwrap_err();
        assert!(matches!(error, CallError::Garbled(_)), "{error}");
    }
}

#[tokio::test]
async fn credentials_are_kept_renewed_and_forgotten() {
    let lasting = Provider::new(Duration::from_secs(3_600));
    let (_double, endpoint) = Double::start(std::iter::repeat_n(says(200, "<R/>"), 3)).await;
    let (session, patience) = (lasting.session(), PATIENCE);
    for _ in 0..3 {
        let service = AutoScaling::new(&session, Some(&endpoint), patience);
        service.set_unhealthy(A).await.unwrap();
    }
    assert_eq!(lasting.asked.load(Relaxed), 1, "one session, one set of credentials");

    let ending = Provider::new(Duration::from_secs(30));
    let (_double, endpoint) = Double::start(std::iter::repeat_n(says(200, "<R/>"), 2)).await;
    let service = AutoScaling::new(&ending.session(), Some(&endpoint), patience);
    service.set_unhealthy(A).await.unwrap();
    service.set_unhealthy(A).await.unwrap();
    assert_eq!(ending.asked.load(Relaxed), 2, "they end too soon to be kept");

    let revoked = Provider::new(Duration::from_secs(3_600));
    let (double, endpoint) =
        Double::start([refuses(403, "ExpiredToken", "expired"), says(200, "<R/>")]).await;
    let service = AutoScaling::new(&revoked.session(), Some(&endpoint), patience);
    assert_eq!(service.set_unhealthy(A).await.unwrap(), Told::Heard);
    assert_eq!(revoked.asked.load(Relaxed), 2);
    let asked = double.asked.lock().unwrap();
    assert!(asked[1].0.contains("Credential=AKID1/"), "by the new ones: {}", asked[1].0);
}

//! Amazon EC2 Auto Scaling: what its groups are told of their instances.

use std::time::Duration;

use crate::{
    error::CallError,
    service::{Api, Service, Session},
};

const API: Api = Api { name: "autoscaling", version: "2011-01-01" };

#[derive(Debug)]
pub struct AutoScaling(Service);

/// The action that a group's hook waits for.
#[derive(Clone, Copy, Debug)]
pub struct LifecycleAction<'a> {
    pub group: &'a str,
    pub hook: &'a str,
    pub instance: &'a str,
}

/// Whether what was told had somebody to hear it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Heard,
    /// There is no such action any more, or the instance is in no group.
    Nobody,
}

impl AutoScaling {
    /// `endpoint`: a URL in place of the service's own. `patience`: for all attempts at a call together.
    pub fn new(session: &Session, endpoint: Option<&str>, patience: Duration) -> Self {
        Self(Service::new(API, session, endpoint, patience))
    }

    /// Lets the group go on with an instance that its hook has held.
    pub async fn complete(&self, action: LifecycleAction<'_>) -> Result<Told, CallError> {
        let LifecycleAction { group, hook, instance } = action;
        let fields = [
            ("AutoScalingGroupName", group),
            ("LifecycleHookName", hook),
            ("InstanceId", instance),
            ("LifecycleActionResult", "CONTINUE"),
        ];
        let told = self.0.call("CompleteLifecycleAction", &fields).await;
        nobody_where(told, "No active Lifecycle Action found")
    }

    /// Lets the instance's group end it and start another, however young it is.
    pub async fn set_unhealthy(&self, instance: &str) -> Result<Told, CallError> {
        let fields = [
            ("InstanceId", instance),
            ("HealthStatus", "Unhealthy"),
            ("ShouldRespectGracePeriod", "false"),
        ];
        let told = self.0.call("SetInstanceHealth", &fields).await;
        nobody_where(told, "Instance Id not found")
    }
}

/// The service has one code for all that does not fit, so what is not there is told by its message.
fn nobody_where(told: Result<String, CallError>, message_of_none: &str) -> Result<Told, CallError> {
    match told {
        Ok(_) => Ok(Told::Heard),
        Err(CallError::Refused { message, .. }) if message.contains(message_of_none) => {
            Ok(Told::Nobody)
        }
        Err(error) => Err(error),
    }
}

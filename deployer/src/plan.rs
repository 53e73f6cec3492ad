//! What a deployment will change, decided before anything is changed.
//!
//! **Architecture invariant:** there is no dry-run flag below the command line. A dry run shows
//! the [`Plan`]; a real one applies the same one.

use std::fmt;

use thiserror::Error;

use crate::{
    definition::{Container, TaskDefinition},
    ecs::Service,
};

/// A service that a rolling update can change. Only [`rolling`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rolling {
    cluster: String,
    service: String,
    task_definition: String,
}

/// Why a service cannot be given another task definition here.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The cluster has no service of this name.
    #[error("the cluster `{cluster}` has no service `{service}`")]
    Missing {
        /// The cluster.
        cluster: String,
        /// The service.
        service: String,
    },
    /// The service is deleted, or about to be.
    #[error("the service `{service}` is {status}, not ACTIVE")]
    NotActive {
        /// The service.
        service: String,
        /// Its status.
        status: String,
    },
    /// Another deployer decides what the service runs.
    #[error(
        "the service `{service}` has the deployment controller {controller}, which UpdateService cannot give another task definition"
    )]
    Controller {
        /// The service.
        service: String,
        /// The kind of its deployment controller.
        controller: String,
    },
    /// ECS does not say what the service runs.
    #[error("the service `{service}` has no task definition")]
    NoTaskDefinition {
        /// The service.
        service: String,
    },
}

/// What will change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The cluster.
    pub cluster: String,
    /// The service.
    pub service: String,
    /// The ARN of the task definition that the service uses now.
    pub from: String,
    /// The calls that change something, in the order in which to make them.
    pub changes: Vec<Change>,
    /// What that means for each container.
    pub images: Vec<ImageChange>,
}

/// One call that will change something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Registers a new revision.
    Register {
        /// The task definition's name.
        family: String,
    },
    /// Tells the service to use it.
    UpdateService {
        /// The revision that the service uses now, as `family:revision`.
        from: String,
        /// The name of the task definition whose new revision it will use.
        to: String,
    },
}

/// The image of one container, now and then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageChange {
    /// The container's name.
    pub container: String,
    /// The image that it runs now, if there is such a container now.
    pub from: Option<String>,
    /// The image that it will run, if there will be such a container.
    pub to: Option<String>,
}

/// Checks that what ECS says of a service is a service that `UpdateService` can change.
pub fn rolling(cluster: &str, service: &str, found: Option<Service>) -> Result<Rolling, PlanError> {
    let service = service.to_owned();
    let Some(found) = found else {
        return Err(PlanError::Missing { cluster: cluster.to_owned(), service });
    };
    if found.status != "ACTIVE" {
        return Err(PlanError::NotActive { service, status: found.status });
    }
    if found.controller != "ECS" {
        return Err(PlanError::Controller { service, controller: found.controller });
    }
    let Some(task_definition) = found.task_definition else {
        return Err(PlanError::NoTaskDefinition { service });
    };
    Ok(Rolling { cluster: cluster.to_owned(), service, task_definition })
}

impl Rolling {
    /// The ARN of the task definition that the service uses now.
    pub fn task_definition(&self) -> &str {
        &self.task_definition
    }
}

/// The changes that give `service`, whose tasks have the containers `current`, the task
/// definition `desired`.
pub fn plan(service: Rolling, current: &[Container], desired: &TaskDefinition) -> Plan {
    let from = &service.task_definition;
    let revision = from.rsplit_once('/').map_or(from.as_str(), |(_, revision)| revision).to_owned();
    let family = desired.family().to_owned();
    let changes = vec![
        Change::Register { family: family.clone() },
        Change::UpdateService { from: revision, to: family },
    ];
    Plan {
        cluster: service.cluster,
        service: service.service,
        from: service.task_definition,
        changes,
        images: image_changes(current, desired.containers()),
    }
}

/// The containers that will be, in their order, and then those that will be no more.
fn image_changes(current: &[Container], desired: &[Container]) -> Vec<ImageChange> {
    let image_in = |containers: &[Container], name: &str| {
        containers.iter().find(|found| found.name == name).map(|found| found.image.clone())
    };
    let gone = current.iter().filter(|old| image_in(desired, &old.name).is_none());
    let names = desired.iter().chain(gone).map(|container| &container.name);
    names
        .map(|name| ImageChange {
            container: name.clone(),
            from: image_in(current, name),
            to: image_in(desired, name),
        })
        .collect()
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register { family } => write!(f, "register a new revision of `{family}`"),
            Self::UpdateService { from, to } => {
                write!(f, "update the service: {from} -> the new revision of `{to}`")
            }
        }
    }
}

impl fmt::Display for ImageChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.container;
        match (&self.from, &self.to) {
            (Some(from), Some(to)) if from == to => write!(f, "  {name}: {to}"),
            (Some(from), Some(to)) => write!(f, "~ {name}: {from} -> {to}"),
            (None, Some(to)) => write!(f, "+ {name}: {to}"),
            (Some(from), None) => write!(f, "- {name}: {from}"),
            (None, None) => write!(f, "  {name}"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "service `{}` in cluster `{}`:", self.service, self.cluster)?;
        for (index, change) in self.changes.iter().enumerate() {
            writeln!(f, "  {}. {change}", index + 1)?;
        }
        writeln!(f, "images:")?;
        for image in &self.images {
            writeln!(f, "  {image}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const ARN: &str = "arn:aws:ecs:eu-west-1:123456789012:task-definition/shop:7";

    fn service() -> Service {
        Service {
            status: "ACTIVE".into(),
            controller: "ECS".into(),
            task_definition: Some(ARN.into()),
        }
    }

    #[test]
    fn only_a_service_that_can_be_updated_is_planned_for() {
        let check = |found: Option<Service>, want: &str| {
            assert_eq!(rolling("prod", "web", found).unwrap_err().to_string(), want);
        };
        check(None, "the cluster `prod` has no service `web`");
        for status in ["DRAINING", "INACTIVE"] {
            let found = Service { status: status.into(), ..service() };
            check(Some(found), &format!("the service `web` is {status}, not ACTIVE"));
        }
        for controller in ["CODE_DEPLOY", "EXTERNAL"] {
            let found = Service { controller: controller.into(), ..service() };
            check(
                Some(found),
                &format!(
                    "the service `web` has the deployment controller {controller}, which UpdateService cannot give another task definition"
                ),
            );
        }
        let found = Service { task_definition: None, ..service() };
        check(Some(found), "the service `web` has no task definition");
    }

    #[test]
    fn a_plan_says_what_will_be_called_and_what_that_means() {
        let desired = TaskDefinition::parse(
            r#"{"family": "store", "containerDefinitions": [
                {"name": "new", "image": "n:1"}, {"name": "web", "image": "shop:2"},
                {"name": "log", "image": "log:3"}]}"#,
        )
        .unwrap();
        let container =
            |name: &str, image: &str| Container { name: name.into(), image: image.into() };
        let current =
            [container("web", "shop:1"), container("old", "o:1"), container("log", "log:3")];
        let rolling = rolling("prod", "web", Some(service())).unwrap();
        assert_eq!(rolling.task_definition(), ARN);
        let plan = plan(rolling, &current, &desired);
        assert_eq!(plan.from, ARN);
        expect![[r#"
            service `web` in cluster `prod`:
              1. register a new revision of `store`
              2. update the service: shop:7 -> the new revision of `store`
            images:
              + new: n:1
              ~ web: shop:1 -> shop:2
                log: log:3
              - old: o:1
        "#]]
        .assert_eq(&plan.to_string());
    }
}

//! What this crate needs from ECS, in its own words.

use std::{error::Error as StdError, future::Future};

use thiserror::Error;

use crate::definition::{Container, TaskDefinition};

pub mod aws;

/// The calls that a deployment makes.
pub trait Ecs {
    /// What ECS says of a service, if the cluster has it.
    fn describe_service(
        &self,
        cluster: &str,
        service: &str,
    ) -> impl Future<Output = Result<Option<Service>, EcsError>> + Send;

    /// The containers of the task definition with this ARN.
    fn describe_task_definition(
        &self,
        arn: &str,
    ) -> impl Future<Output = Result<Vec<Container>, EcsError>> + Send;

    /// Registers a new revision.
    fn register_task_definition(
        &self,
        definition: &TaskDefinition,
    ) -> impl Future<Output = Result<Registered, EcsError>> + Send;

    /// Makes a service use the task definition with this ARN; changes nothing else of it.
    fn update_service(
        &self,
        cluster: &str,
        service: &str,
        arn: &str,
    ) -> impl Future<Output = Result<(), EcsError>> + Send;
}

/// A service at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `ACTIVE`, `DRAINING`, or `INACTIVE`.
    pub status: String,
    /// Who decides what it runs: `ECS`, `CODE_DEPLOY`, or `EXTERNAL`.
    pub controller: String,
    /// The ARN of the task definition that it uses.
    pub task_definition: Option<String>,
}

/// A task definition that is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The ARN of its revision.
    pub arn: String,
    /// The paths of its fields: those at the top, and those of each container.
    pub fields: Vec<String>,
}

/// A call that ECS did not answer as it should.
#[derive(Debug, Error)]
pub enum EcsError {
    /// ECS finds the request wrong: trying again won't help.
    #[error("ECS refuses {call}: {code}: {message}")]
    Refused {
        /// The name of the call.
        call: &'static str,
        /// ECS's name of the error.
        code: String,
        /// What ECS says of it.
        message: String,
    },
    /// ECS did not do it, for a reason outside the request: permissions, load, a fault.
    #[error("ECS did not do {call}: {code}: {message}")]
    NotDone {
        /// The name of the call.
        call: &'static str,
        /// ECS's name of the error.
        code: String,
        /// What ECS says of it.
        message: String,
    },
    /// No answer came, or none that can be read.
    #[error("{call} got no usable answer from ECS")]
    NoAnswer {
        /// The name of the call.
        call: &'static str,
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The answer lacks what every answer has.
    #[error("the answer of ECS to {call} has no `{field}`")]
    Incomplete {
        /// The name of the call.
        call: &'static str,
        /// What it lacks.
        field: &'static str,
    },
}

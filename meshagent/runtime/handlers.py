"""Between a role's typed handler and the executor's bytes: decode the task, call, encode the result.

`handler_of` builds it for an agent of this node; `call_in_worker` does the same inside a spawned process, where the
role's module is imported afresh and the role gets an instance of its own: a process shares nothing with the agent.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from meshagent.core.acts import TaskRecord
from meshagent.errors import LocalProtocolError
from meshagent.runtime.executor import Handler, Work
from meshagent.runtime.worker import Job
from meshagent.sdk.backend import NodeServices, PeerInfo, Pending, SubmitRequest
from meshagent.sdk.compiling import compile_role
from meshagent.sdk.context import Context, TaskContext
from meshagent.sdk.role import Role, RoleSpec, TaskSpec
from meshagent.types import NodeId


def handler_of(role: Role, spec: RoleSpec, task: TaskSpec, services: NodeServices) -> Handler:
    """The handler of one kind by one agent."""

    async def start(work: Work) -> bytes:
        job = task.kind.decode(work.record.spec)
        context: Context | None = None
        if task.takes is TaskContext:
            context = TaskContext(services, work, spec.name)
        elif task.takes is not None:
            context = Context(services, spec.name, parent=work.record.task)
        arguments = (role, job) if context is None else (role, job, context)
        return task.kind.encode_result(await task.function(*arguments))

    def call(data: bytes) -> bytes:
        return task.kind.encode_result(task.function(role, task.kind.decode(data)))

    def job(record: TaskRecord, until_s: float) -> Job:
        return Job(
            module=spec.origin.module,
            file=spec.origin.file,
            role=spec.origin.qualname,
            handler=task.method,
            kind=task.kind.name,
            spec=record.spec,
            until_s=until_s,
            memory_mib=task.memory_mib,
            node_id=services.id,
            node_name=services.name,
        )

    where = "loop" if task.is_async else "process" if task.worker == "process" else "thread"
    return Handler(
        label=f"{task.where} {task.label}",
        where=where,  # type: ignore[arg-type] # one of the three words
        timeout_s=task.timeout_s,
        start=start,
        call=call,
        job=job if where == "process" else None,
        code=getattr(task.function, "__code__", None),
    )


def call_in_worker(job: Job, limit_memory: Callable[[int], None]) -> bytes:
    """Load the role and run the handler; in a spawned process only.

    Raises:
        LookupError: the role or handler is not where the node found it.
        Exception: whatever the handler raises.
    """
    spec = _role(job.module, job.file, job.role)
    task = spec.performing(job.kind)
    if task is None or task.method != job.handler:
        raise LookupError(f"{job.role} in this process performs {job.kind} by no handler called {job.handler}")
    role = spec.create(_Detached(NodeId(job.node_id), job.node_name))
    limit_memory(job.memory_mib)
    return task.kind.encode_result(task.function(role, task.kind.decode(job.spec)))


_ROLES: dict[tuple[str, str], RoleSpec] = {}


def _role(module_name: str, file: str, qualname: str) -> RoleSpec:
    known = _ROLES.get((module_name, qualname))
    if known is not None:
        return known
    found: Any = _module(module_name, file)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, Role)):
        raise LookupError(f"{module_name} has no role {qualname} in this process")
    spec = _ROLES[module_name, qualname] = compile_role(found)
    return spec


def _module(name: str, file: str) -> Any:
    if name != "__main__" and (name in sys.modules or importlib.util.find_spec(name) is not None):
        return importlib.import_module(name)
    if not file:
        raise LookupError(f"no module {name} in this process")
    # a script that was run as __main__, or a file that is not on the import path: loaded under a name of its own,
    # so that `if __name__ == "__main__":` stays closed
    alias = "__meshagent_main__" if name == "__main__" else name
    if alias in sys.modules:
        return sys.modules[alias]
    found = importlib.util.spec_from_file_location(alias, file)
    if found is None or found.loader is None:
        raise LookupError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[alias] = module
    found.loader.exec_module(module)
    return module


class _Detached:
    """The node as seen from a worker process: a name. There is no mesh here."""

    def __init__(self, node_id: NodeId, name: str) -> None:
        self.id = node_id
        self.name = name

    def now_s(self) -> float:
        from meshagent.runtime.worker import boot_s

        return boot_s()

    def peers(self) -> Sequence[PeerInfo]:
        return ()

    def submit(self, request: SubmitRequest) -> Pending:
        _no_mesh()

    def emit(self, name: str, body: bytes) -> None:
        _no_mesh()


def _no_mesh() -> NoReturn:
    raise LocalProtocolError(
        "a handler in a worker process cannot talk to the mesh", next_step="make it async def, and compute elsewhere"
    )

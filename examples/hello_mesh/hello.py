from dataclasses import dataclass

from meshagent import Role, Task, task


@dataclass(frozen=True)
class Greet(Task[str]):
    name: str


class Greeter(Role):
    @task
    async def greet(self, job: Greet) -> str:
        return f"hello {job.name}, {self.node.name} speaking"

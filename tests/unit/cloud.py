"""A fake AWS whose responses each test sets."""

from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from lstm_fcn.client.sagemaker.account import Account

MISSING = ("ValidationException", "Requested resource not found.")

Answer = dict[str, Any] | Exception | Callable[..., Any]


def refusal(code: str, message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Operation")


class Cloud:
    """A fake boto3 session that records calls; `answers` are the responses by method, the last of which is repeated."""

    region_name = "eu-west-1"

    def __init__(self, **answers: Answer | list[Any]) -> None:
        self.answers = {name: list(value) if isinstance(value, list) else [value] for name, value in answers.items()}
        self.answers.setdefault("list_objects_v2", [{"KeyCount": 1}])
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def client(self, _: str) -> "Cloud":
        return self

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(**parameters: Any) -> Any:
            self.calls.append((name, parameters))
            answers = self.answers.get(name, [refusal(*MISSING)])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, Exception):
                raise answer
            return answer(**parameters) if callable(answer) else answer

        return call

    @property
    def account(self) -> Account:
        return Account(self)

    def methods(self) -> list[str]:
        return [name for name, _ in self.calls if name != "list_objects_v2"]

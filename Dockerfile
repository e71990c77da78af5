FROM python:3.11-slim

WORKDIR /src
COPY constraints.txt pyproject.toml LICENSE ./
COPY clients/python clients/python
COPY persistence persistence
COPY service service
RUN pip install --no-cache-dir -c constraints.txt ./clients/python '.[embedded]' \
    && useradd --create-home flowkeep \
    && install -d -o flowkeep -g flowkeep /var/lib/flowkeep

# The data folder of the embedded Postgres is made here; production sets FLOWKEEP_DATABASE_URL.
WORKDIR /var/lib/flowkeep
VOLUME /var/lib/flowkeep
USER flowkeep
EXPOSE 50051
CMD ["flowkeep", "serve"]
